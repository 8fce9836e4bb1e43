"""What to do next for one application, from what is wanted and what is. Pure.

A new revision is started beside the one that serves. When all its replicas are ready it takes the requests,
and the old one drains, parents before their children. When it cannot be started it is given up, and the old
one serves on. Only where both cannot stand side by side, because the old one holds a GPU or another exclusive
resource, does an old replica leave first.
"""

from __future__ import annotations

import msgspec

from trygon.control.actions import (
    Action,
    CompleteRevision,
    DrainReplica,
    FailRevision,
    ForgetApplication,
    KillReplica,
)
from trygon.control.reconcile.deployment import has_failed, plan_starts
from trygon.control.reconcile.health import plan_health
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.state import Application, Replica, Revision
from trygon.engine.base import exclusive

__all__ = ["Plan", "reconcile"]


class Plan(msgspec.Struct, frozen=True):
    """What to do now, and when to look again even if nothing happens."""

    actions: tuple[Action, ...]
    wake_at: float | None = None


def reconcile(application: Application, now: float, *, longest_drain_s: float | None = None) -> Plan:
    """Return what to do for one application.

    Args:
        application: What is wanted and what is; not changed.
        now: Monotonic seconds.
        longest_drain_s: Bounds every drain, while the whole instance shuts down.
    """
    verdict = _verdict(application)
    if verdict is not None:
        return Plan((verdict,))
    actions: list[Action] = []
    wakes: list[float] = []
    for revision in _kept(application):
        for deployment in revision.spec.deployments:
            if _gives_way(application, revision, exclusive(deployment.options.resources)):
                continue
            starts, wake_at = plan_starts(application, revision, deployment, now)
            actions += starts
            if wake_at is not None:
                wakes.append(wake_at)
    health = plan_health(application, now)
    actions += health.actions
    wakes += health.wakes
    leaving = [*_outdated(application), *_making_room(application), *health.leaving]
    actions += [_drain(replica, reason, longest_drain_s) for replica, reason in leaving]
    for replica in application.replicas.values():
        if replica.deadline is None:
            continue
        if replica.deadline <= now:
            actions.append(KillReplica(replica.replica_id))
        else:
            wakes.append(replica.deadline)
    return Plan(tuple(actions), min(wakes, default=None))


def _verdict(application: Application) -> Action | None:
    """Return the step that comes before all others, if one is due."""
    if application.deleting:
        return None if application.replicas else ForgetApplication(application.name)
    target = application.wanted
    if target is None or target is application.serving:
        return None
    for deployment in target.spec.deployments:
        if has_failed(application, target, deployment):
            error = application.record(deployment.name, target.number).error
            return FailRevision(application.name, target.number, deployment.name, error)
    if all(
        application.ready_count(deployment, target.number) >= deployment.options.num_replicas
        for deployment in target.spec.deployments
    ):
        return CompleteRevision(application.name, target.number)
    return None


def _kept(application: Application) -> list[Revision]:
    """Return the revisions that shall have replicas, the serving one first."""
    if application.deleting:
        return []
    kept = [application.serving] if application.serving is not None else []
    wanted = application.wanted
    if wanted is not None and wanted is not application.serving:
        kept.append(wanted)
    return kept


def _gives_way(application: Application, revision: Revision, needs_exclusive: bool) -> bool:
    """A revision that is to be replaced takes no GPU from the one that replaces it."""
    wanted = application.wanted
    return needs_exclusive and wanted is not None and wanted is not revision


def _outdated(application: Application) -> list[tuple[Replica, str]]:
    """Return the replicas of revisions that are not kept, whose callers are gone."""
    kept = {revision.number for revision in _kept(application)}
    reason = "the application is deleted" if application.deleting else "its revision is replaced"
    outdated = [r for r in application.replicas.values() if r.live and r.launch.revision not in kept]
    # A parent that still finishes requests needs its children.
    callers = {
        (r.launch.revision, r.launch.deployment)
        for r in application.replicas.values()
        if r.phase is not ReplicaPhase.STARTING
    }
    return [
        (replica, reason)
        for replica in outdated
        if replica.phase is ReplicaPhase.STARTING
        or not any((replica.launch.revision, parent) in callers for parent in replica.launch.parents)
    ]


def _making_room(application: Application) -> list[tuple[Replica, str]]:
    """Return the replicas of the serving revision that must leave before the wanted one finds a place."""
    wanted, serving = application.wanted, application.serving
    if wanted is None or serving is None or wanted is serving:
        return []
    old = [
        r
        for r in application.replicas.values()
        if r.launch.revision != wanted.number and exclusive(r.launch.options.resources)
    ]
    if any(not r.live for r in old):
        # One is on its way out already; what it gives back may be enough.
        return []
    for deployment in wanted.spec.deployments:
        if not application.record(deployment.name, wanted.number).blocked:
            continue
        own = [r for r in old if r.launch.deployment == deployment.name]
        for replica in (own or old)[:1]:
            return [(replica, "its resources are needed by the next revision")]
    return []


def _drain(replica: Replica, reason: str, longest_s: float | None) -> DrainReplica:
    timeout_s = replica.launch.options.graceful_shutdown_timeout_s
    if replica.phase is ReplicaPhase.STARTING:
        # It has no request yet.
        timeout_s = 0.0
    elif longest_s is not None:
        timeout_s = min(timeout_s, longest_s)
    return DrainReplica(replica.replica_id, timeout_s, reason)
