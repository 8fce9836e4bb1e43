"""Why an application, a deployment or a replica is as it is, from the state and its decision log. Pure."""

from __future__ import annotations

from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.reconcile.status import application_status
from trygon.control.scaler import Scaler
from trygon.control.state import Application, ControllerState, Replica, Revision, StartRecord
from trygon.errors import ServeError
from trygon.spec.explanation import Decision, DeploymentExplanation, Explanation, ReplicaExplanation
from trygon.spec.status import DeploymentStatusOverview
from trygon.spec.validation import near_names

__all__ = ["explain"]


def explain(state: ControllerState, name: str, now: float) -> Explanation:
    """Return why `name` is as it is.

    Args:
        state: What the controller knows; not changed.
        name: An application, "application/deployment", or a replica's id or tag.
        now: Monotonic seconds.

    Raises:
        ServeError: Nothing has that name.
    """
    application, deployment, replica_id = _find(state, name)
    overview = application_status(application)
    revision = application.target or application.serving
    names = [d.name for d in revision.spec.deployments] if revision is not None else []
    names += sorted((overview.deployments.keys() | application.log.keys()) - set(names))
    return Explanation(
        application=application.name,
        status=str(overview.status),
        message=overview.message,
        revision=revision.number if revision is not None else 0,
        serving=application.serving.number if application.serving is not None else 0,
        replica_id=replica_id,
        deployments=tuple(
            _deployment(application, one, revision, overview.deployments.get(one), replica_id, now)
            for one in names
            if deployment in ("", one)
        ),
    )


def _find(state: ControllerState, name: str) -> tuple[Application, str, str]:
    """Return the application, the deployment and the replica that `name` means; empty for all."""
    application = state.applications.get(name)
    if application is not None:
        return application, "", ""
    for application in state.applications.values():
        for deployment, decisions in application.log.items():
            if name == f"{application.name}/{deployment}":
                return application, deployment, ""
            # Its tag is enough; one that is gone has left its story.
            replica_id = name if "#" in name else f"{application.name}#{deployment}#{name}"
            if replica_id.startswith(f"{application.name}#{deployment}#") and (
                replica_id in application.replicas or any(replica_id in text for _, text in decisions)
            ):
                return application, deployment, replica_id
        revision = application.target or application.serving
        for spec in revision.spec.deployments if revision is not None else ():
            if name == f"{application.name}/{spec.name}":
                return application, spec.name, ""
    known = list(state.applications)
    known += [f"{a.name}/{deployment}" for a in state.applications.values() for deployment in a.log]
    hint = near_names(name, known) or f"; known are {', '.join(map(repr, known)) or 'none'}, and replica ids"
    raise ServeError(f"there is no application, deployment or replica {name!r}{hint}")


def _deployment(
    application: Application,
    name: str,
    revision: Revision | None,
    overview: DeploymentStatusOverview | None,
    replica_id: str,
    now: float,
) -> DeploymentExplanation:
    record = application.record(name, revision.number) if revision is not None else StartRecord()
    spec = next((d for d in revision.spec.deployments if d.name == name), None) if revision else None
    wanted = application.count(revision, spec) if spec is not None and revision is not None else 0
    serving = application.serving
    scaler = application.scaler(serving, name) if serving is not None else None
    ready = application.ready_count(spec, revision.number) if spec is not None and revision is not None else 0
    pause_s = record.retry_at - now
    is_paused = pause_s > 0 and ready < wanted and not application.failure
    return DeploymentExplanation(
        name=name,
        status=str(overview.status) if overview is not None else "",
        message=overview.message if overview is not None else "",
        wanted=wanted,
        ready=ready,
        scaling=_scaling(scaler, now) if scaler is not None else (),
        waits_for=_waits_for(application, name, record, wanted=wanted, ready=ready, is_paused=is_paused),
        next_try_in_s=pause_s if is_paused else None,
        failures=record.failures,
        last_error=record.error,
        replicas=tuple(
            _replica(replica, now)
            for replica in application.replicas.values()
            if replica.launch.deployment == name and replica_id in ("", replica.replica_id)
        ),
        decisions=tuple(
            Decision(age_s=now - at, text=text)
            for at, text in application.log.get(name, ())
            if replica_id in text
        ),
    )


def _scaling(scaler: Scaler, now: float) -> tuple[str, ...]:
    low, high = scaler.bounds.low, scaler.bounds.high
    lines = [
        f"{scaler.count} replicas of {low} to {high}; now {scaler.queued:.1f} requests wait "
        f"and {scaler.running:.1f} are in work"
    ]
    if scaler.decision is not None:
        lines.append(f"decided {now - scaler.decided_at:.1f} s ago: {scaler.decision.why}")
    if scaler.policy is not None:
        lines.append(f"the policy is {scaler.policy.title}")
    return tuple(lines)


def _waits_for(
    application: Application,
    name: str,
    record: StartRecord,
    *,
    wanted: int,
    ready: int,
    is_paused: bool,
) -> str:
    own = [replica for replica in application.replicas.values() if replica.launch.deployment == name]
    leaving = [replica for replica in own if not replica.live]
    if application.deleting:
        return _finishing(len(own), "")
    if application.failure:
        return "a new deploy: this revision was given up"
    if ready < wanted:
        if record.blocked:
            return f"resources: {record.blocked}"
        if is_paused:
            return "the end of the pause after a failure"
        starting = sum(1 for replica in own if replica.phase is ReplicaPhase.STARTING)
        return f"{_replicas(starting)} to be ready"
    if application.serving is not application.target:
        return "the other deployments of the revision"
    if not application.served:
        return "every ingress process to route to it"
    return _finishing(len(leaving), "old ")


def _finishing(count: int, kind: str) -> str:
    whose = "its" if count == 1 else "their"
    return f"{_replicas(count, kind)} to finish {whose} requests" if count else ""


def _replicas(count: int, kind: str = "") -> str:
    return f"{count} {kind}{'replica' if count == 1 else 'replicas'}"


def _replica(replica: Replica, now: float) -> ReplicaExplanation:
    return ReplicaExplanation(
        replica_id=replica.replica_id,
        revision=replica.launch.revision,
        phase=str(replica.phase),
        age_s=now - replica.since,
        pid=replica.pid,
        reason=replica.reason,
        killed_in_s=None if replica.deadline is None else max(0.0, replica.deadline - now),
    )
