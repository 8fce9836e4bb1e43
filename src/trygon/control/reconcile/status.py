"""Statuses, triggers and messages as Ray Serve names them, from the state. Pure."""

from __future__ import annotations

from trygon.control.reconcile.deployment import max_failures
from trygon.control.reconcile.health import describe_trouble, is_answering
from trygon.control.reconcile.intensity import WINDOW_S, is_crash_looping
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.scaler import Scaler
from trygon.control.state import Application, Replica, Revision, StartRecord
from trygon.engine.base import exclusive
from trygon.spec.application import DeploymentSpec
from trygon.spec.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ReplicaState,
)

__all__ = ["REPLICA_STATES", "application_status"]

#: Ray Serve's word for each phase.
REPLICA_STATES = {
    ReplicaPhase.STARTING: ReplicaState.STARTING,
    ReplicaPhase.READY: ReplicaState.RUNNING,
    ReplicaPhase.DRAINING: ReplicaState.STOPPING,
    ReplicaPhase.FAILED: ReplicaState.STOPPING,
    ReplicaPhase.STOPPED: ReplicaState.STOPPED,
}

#: Worst first; the first that any deployment has decides the application's status.
_WORST_FIRST = (
    (DeploymentStatus.DEPLOY_FAILED, ApplicationStatus.DEPLOY_FAILED),
    (DeploymentStatus.UNHEALTHY, ApplicationStatus.UNHEALTHY),
    (DeploymentStatus.UPDATING, ApplicationStatus.DEPLOYING),
    (DeploymentStatus.UPSCALING, ApplicationStatus.DEPLOYING),
    (DeploymentStatus.DOWNSCALING, ApplicationStatus.DEPLOYING),
)
#: What follows the load all day long does not make an application other than RUNNING, as in Ray Serve.
_SCALING = (DeploymentStatus.UPSCALING, DeploymentStatus.DOWNSCALING)

_NOT_ROUTED = "its replicas are ready, but not every ingress process routes to them yet"


def application_status(application: Application) -> ApplicationStatusOverview:
    """Return one application as `serve.status()` shows it."""
    revision = application.target or application.serving
    if application.deleting or revision is None:
        return ApplicationStatusOverview(
            status=ApplicationStatus.DELETING,
            message="waiting for its replicas to finish",
            deployments=_deleting(application),
        )
    deployments = {d.name: _deployment_status(application, revision, d) for d in revision.spec.deployments}
    found = {
        overview.status
        for overview in deployments.values()
        if not (
            overview.status in _SCALING and overview.status_trigger is DeploymentStatusTrigger.AUTOSCALING
        )
    }
    status = next((app for worst, app in _WORST_FIRST if worst in found), ApplicationStatus.RUNNING)
    message = _message(application, revision, deployments)
    if status is ApplicationStatus.RUNNING and not application.served:
        # Its replicas are ready; an ingress has yet to hear of them, or died and is being started again.
        status = ApplicationStatus.DEPLOYING
        message = "\n".join(part for part in (message, _NOT_ROUTED) if part)
    return ApplicationStatusOverview(
        status=status,
        message=message,
        last_deployed_time_s=revision.deployed_wall_s,
        deployments=deployments,
        route_prefix=revision.spec.route_prefix,
        revision=revision.number,
    )


def _message(
    application: Application, revision: Revision, deployments: dict[str, DeploymentStatusOverview]
) -> str:
    if application.failure:
        serving = application.serving
        rest = f"; revision {serving.number} serves on" if serving is not None else ""
        overview = deployments.get(application.failed_deployment)
        detail = overview.message if overview is not None else application.failure
        return f"deployment {application.failed_deployment!r} of revision {revision.number}{rest}: {detail}"
    return "\n".join(
        f"{name}: {overview.message}" for name, overview in deployments.items() if overview.message
    )


def _deployment_status(
    application: Application, revision: Revision, deployment: DeploymentSpec
) -> DeploymentStatusOverview:
    replicas = [
        replica
        for generation in application.replicas.generations(deployment.name)
        for replica in application.replicas.of(deployment.name, generation)
    ]
    status, trigger, message = _judge(application, revision, deployment)
    if status is DeploymentStatus.HEALTHY and not _any_answers(replicas, revision):
        status, trigger = DeploymentStatus.UNHEALTHY, DeploymentStatusTrigger.HEALTH_CHECK_FAILED
    note = revision.notes.get(deployment.name, "")
    return DeploymentStatusOverview(
        status=status,
        status_trigger=trigger,
        replica_states=_count(replicas),
        message="\n".join(
            part
            for part in (message, *_troubles(replicas), application.router_trouble(deployment.name), note)
            if part
        ),
    )


_Judgement = tuple[DeploymentStatus, DeploymentStatusTrigger, str]


def _judge(application: Application, revision: Revision, deployment: DeploymentSpec) -> _Judgement:
    if application.failure:
        return _judge_failed(application, revision, deployment)
    if application.serving is revision:
        return _judge_serving(application, revision, deployment)
    return _judge_coming(application, revision, deployment)


def _judge_failed(application: Application, revision: Revision, deployment: DeploymentSpec) -> _Judgement:
    if application.failed_deployment != deployment.name:
        return (
            DeploymentStatus.UNHEALTHY,
            DeploymentStatusTrigger.REPLICA_STARTUP_FAILED,
            f"not deployed, because deployment {application.failed_deployment!r} could not be started",
        )
    record = application.record(deployment.name, revision.generation(deployment.name))
    return (
        DeploymentStatus.DEPLOY_FAILED,
        DeploymentStatusTrigger.REPLICA_STARTUP_FAILED,
        f"starting a replica failed {record.failures} times in a row and is given up; "
        f"the last error was:\n{record.error}",
    )


def _judge_serving(application: Application, revision: Revision, deployment: DeploymentSpec) -> _Judgement:
    """The revision takes requests; replicas may be missing, be too many, or have yesterday's options."""
    name, wanted = deployment.name, application.count(revision, deployment)
    generation = revision.generation(name)
    scaler = application.scaler(revision, name)
    # A helper of a blocked replica comes on top, and goes by itself.
    own = [r for r in application.of(name, generation) if not r.launch.is_helper]
    ready = [r for r in own if r.phase is ReplicaPhase.READY]
    record = application.record(name, generation)
    before = revision.resized_from.get(name, wanted) if scaler is None else scaler.before
    cause = (
        DeploymentStatusTrigger.CONFIG_UPDATE_STARTED
        if scaler is None
        else DeploymentStatusTrigger.AUTOSCALING
    )
    if len(ready) < wanted:
        progress = "\n".join(filter(None, (_progress(len(ready), wanted, record), _waiting_room(scaler))))
        if before < wanted and not record.error:
            return DeploymentStatus.UPSCALING, cause, progress
        if is_crash_looping(record):
            progress += (
                f"; it is crash-looping: too many replicas ended within {WINDOW_S:.0f} s, "
                "and each end makes the pause before the next start longer"
            )
        message = f"{progress}; the last one that ended: {record.error}" if record.error else progress
        return DeploymentStatus.UNHEALTHY, DeploymentStatusTrigger.HEALTH_CHECK_FAILED, message
    refused = next((r for r in ready if r.config_error), None)
    if refused is not None:
        return (
            DeploymentStatus.UNHEALTHY,
            DeploymentStatusTrigger.INTERNAL_ERROR,
            f"replica {refused.replica_id} could not be reconfigured and serves on as it was:\n"
            f"{refused.config_error}",
        )
    leaving = [
        r for r in own if r.phase is ReplicaPhase.DRAINING and (r.launch.rank >= wanted or scaler is not None)
    ]
    if len(ready) > wanted or (leaving and before > wanted):
        message = f"{len(ready) - wanted + len(leaving)} replicas too many finish their requests"
        return DeploymentStatus.DOWNSCALING, cause, message
    old = sum(1 for r in ready if r.configured < revision.config(name))
    if old:
        message = f"{len(ready) - old} of {wanted} replicas are reconfigured"
        return DeploymentStatus.UPDATING, DeploymentStatusTrigger.CONFIG_UPDATE_STARTED, message
    trigger = DeploymentStatusTrigger.CONFIG_UPDATE_COMPLETED
    message = _policy_problem(scaler)
    if before < wanted:
        trigger = DeploymentStatusTrigger.UPSCALE_COMPLETED
    elif before > wanted:
        trigger = DeploymentStatusTrigger.DOWNSCALE_COMPLETED
    return DeploymentStatus.HEALTHY, trigger, message


def _waiting_room(scaler: Scaler | None) -> str:
    """Return who waits where there is no replica yet."""
    if scaler is None or not scaler.queued:
        return ""
    return f"{scaler.queued:.0f} requests wait"


def _policy_problem(scaler: Scaler | None) -> str:
    if scaler is None or not scaler.policy_error:
        return ""
    last_line = scaler.policy_error.strip().rpartition("\n")[2]
    return f"the autoscaling policy failed, and the number of replicas stays as it is: {last_line}"


def _judge_coming(application: Application, revision: Revision, deployment: DeploymentSpec) -> _Judgement:
    """The revision is on its way; another may serve meanwhile."""
    name, wanted = deployment.name, application.count(revision, deployment)
    generation = revision.generation(name)
    record = application.record(name, generation)
    progress = _progress(application.ready_count(deployment, generation), wanted, record)
    if (record.blocked or not application.rotation(name)) and _stops_its_only_replica(
        application, deployment
    ):
        progress += "; two do not fit, so its only replica stops before the next one starts: requests wait"
    if record.failures:
        limit = max_failures(deployment.options)
        progress += (
            f"; a replica failed to start, {max(0, limit - record.failures)} more failures are tolerated; "
            f"the last error was:\n{record.error}"
        )
    return DeploymentStatus.UPDATING, DeploymentStatusTrigger.CONFIG_UPDATE_STARTED, progress


def _any_answers(replicas: list[Replica], revision: Revision) -> bool:
    """RUNNING says that a request would be answered; where every replica is stuck, none would be."""
    own = [r for r in replicas if r.launch.generation == revision.generation(r.launch.deployment)]
    return not own or any(is_answering(r) for r in own)


def _troubles(replicas: list[Replica]) -> list[str]:
    troubles = [(r, describe_trouble(r.trouble)) for r in replicas if r.trouble]
    troubles += [(r, r.delay) for r in replicas if r.delay and r.phase is ReplicaPhase.STARTING]
    return [f"replica {r.launch.replica_tag}: {text}" for r, text in troubles]


def _progress(ready: int, wanted: int, record: StartRecord) -> str:
    progress = f"{ready} of {wanted} replicas are ready"
    return f"{progress}; waiting for resources: {record.blocked}" if record.blocked else progress


def _stops_its_only_replica(application: Application, deployment: DeploymentSpec) -> bool:
    old = application.serving.by_name.get(deployment.name) if application.serving is not None else None
    return old is not None and old.options.num_replicas == 1 and exclusive(old.options.resources)


def _deleting(application: Application) -> dict[str, DeploymentStatusOverview]:
    names = sorted({r.launch.deployment for r in application.replicas.values()})
    return {
        name: DeploymentStatusOverview(
            status=DeploymentStatus.UPDATING,
            status_trigger=DeploymentStatusTrigger.DELETING,
            replica_states=_count([r for r in application.replicas.values() if r.launch.deployment == name]),
        )
        for name in names
    }


def _count(replicas: list[Replica]) -> dict[ReplicaState, int]:
    counts: dict[ReplicaState, int] = {}
    for replica in replicas:
        state = REPLICA_STATES[replica.phase]
        counts[state] = counts.get(state, 0) + 1
    return counts
