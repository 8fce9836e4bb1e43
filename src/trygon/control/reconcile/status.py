"""Statuses, triggers and messages as Ray Serve names them, from the state. Pure."""

from __future__ import annotations

from trygon.control.reconcile.deployment import max_failures
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.state import Application, Replica, Revision, StartRecord
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
    found = {overview.status for overview in deployments.values()}
    status = next((app for worst, app in _WORST_FIRST if worst in found), ApplicationStatus.RUNNING)
    if status is ApplicationStatus.RUNNING and not application.served:
        # Its replicas are ready; an ingress has yet to hear of them.
        status = ApplicationStatus.DEPLOYING
    return ApplicationStatusOverview(
        status=status,
        message=_message(application, revision, deployments),
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
    replicas = [r for r in application.replicas.values() if r.launch.deployment == deployment.name]
    record = application.record(deployment.name, revision.number)
    ready = application.ready_count(deployment, revision.number)
    status, trigger, message = _judge(application, revision, deployment, record, ready)
    note = revision.notes.get(deployment.name, "")
    return DeploymentStatusOverview(
        status=status,
        status_trigger=trigger,
        replica_states=_count(replicas),
        message="\n".join(part for part in (message, note) if part),
    )


def _judge(
    application: Application,
    revision: Revision,
    deployment: DeploymentSpec,
    record: StartRecord,
    ready: int,
) -> tuple[DeploymentStatus, DeploymentStatusTrigger, str]:
    wanted = deployment.options.num_replicas
    limit = max_failures(deployment.options)
    if application.failure:
        if application.failed_deployment == deployment.name:
            return (
                DeploymentStatus.DEPLOY_FAILED,
                DeploymentStatusTrigger.REPLICA_STARTUP_FAILED,
                f"starting a replica failed {record.failures} times in a row and is given up; "
                f"the last error was:\n{record.error}",
            )
        return (
            DeploymentStatus.UNHEALTHY,
            DeploymentStatusTrigger.REPLICA_STARTUP_FAILED,
            f"not deployed, because deployment {application.failed_deployment!r} could not be started",
        )
    complete = application.serving is revision
    if complete and ready >= wanted:
        return DeploymentStatus.HEALTHY, DeploymentStatusTrigger.CONFIG_UPDATE_COMPLETED, ""
    progress = f"{ready} of {wanted} replicas are ready"
    if record.blocked:
        progress += f"; waiting for resources: {record.blocked}"
    if complete:
        return (
            DeploymentStatus.UNHEALTHY,
            DeploymentStatusTrigger.HEALTH_CHECK_FAILED,
            f"{progress}; the last one that ended: {record.error}" if record.error else progress,
        )
    if record.failures:
        progress += (
            f"; a replica failed to start, {max(0, limit - record.failures)} more failures are tolerated; "
            f"the last error was:\n{record.error}"
        )
    return DeploymentStatus.UPDATING, DeploymentStatusTrigger.CONFIG_UPDATE_STARTED, progress


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
