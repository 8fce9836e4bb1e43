"""What to do next for one application, from what is wanted and what is. Pure.

Only deployments whose code changed get new replicas; the others keep theirs. By default a new generation of a
deployment is started whole beside the one that serves; with `max_surge_percent` it replaces it in batches.
When everything new is ready the revision is complete: it takes the requests, and what is left of the old drains,
parents before their children. When it cannot be started it is given up, and the old one serves on. Only where
both cannot stand side by side, because the old one holds a GPU or another exclusive resource, does an old
replica leave first.
"""

from __future__ import annotations

from collections.abc import Container

import msgspec

from trygon.control.actions import (
    Action,
    CompleteRevision,
    DrainReplica,
    FailRevision,
    ForgetApplication,
    KillReplica,
    ReconfigureReplica,
    ResizeDeployment,
)
from trygon.control.reconcile.deployment import has_failed
from trygon.control.reconcile.health import plan_health
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.reconcile.rollout import Limits, Move, limits_of, plan_move
from trygon.control.reconcile.scaling import plan_scaling
from trygon.control.state import Application, Replica, Revision
from trygon.engine.base import exclusive
from trygon.spec.application import DeploymentSpec

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
    scaled, wakes = plan_scaling(application, now)
    if any(isinstance(action, ResizeDeployment) for action in scaled):
        # What is to be done for the old numbers may be wrong for the new ones.
        return Plan(tuple(scaled))
    actions: list[Action] = [*scaled]
    leaving: dict[str, tuple[Replica, str]] = {}
    for move in _moves(application):
        starts, gone, wake_at = plan_move(application, move, now)
        actions += starts
        leaving |= {r.replica_id: (r, _why_gone(move, r)) for r in gone}
        if wake_at is not None:
            wakes.append(wake_at)
    health = plan_health(application, now)
    actions += health.actions
    wakes += health.wakes
    leaving |= {r.replica_id: (r, reason) for r, reason in health.leaving}
    leaving |= {r.replica_id: (r, reason) for r, reason in _outdated(application)}
    leaving |= {r.replica_id: (r, reason) for r, reason in _making_room(application, leaving)}
    actions += [_drain(replica, reason, longest_drain_s) for replica, reason in leaving.values()]
    actions += _reconfigures(application, leaving.keys())
    for replica in application.replicas.values():
        if replica.deadline is None:
            continue
        if replica.deadline <= now:
            actions.append(KillReplica(replica.replica_id))
        else:
            wakes.append(replica.deadline)
    return Plan(tuple(actions), min(wakes, default=None))


def _why_gone(move: Move, replica: Replica) -> str:
    is_surplus = replica.launch.generation == move.revision.generation(move.deployment.name)
    return "fewer replicas are wanted" if is_surplus else "another one takes its place"


def _verdict(application: Application) -> Action | None:
    """Return the step that comes before all others, if one is due."""
    if application.deleting:
        return None if application.replicas else ForgetApplication(application.name)
    target = application.wanted
    if target is None or target is application.serving:
        return None
    new = [d for d in target.spec.deployments if _is_new(application, target, d.name)]
    for deployment in new:
        if has_failed(application, target, deployment):
            error = application.record(deployment.name, target.generation(deployment.name)).error
            return FailRevision(application.name, target.number, deployment.name, error)
    if all(_is_ready(application, target, deployment) for deployment in new):
        return CompleteRevision(application.name, target.number)
    return None


def _is_new(application: Application, revision: Revision, deployment: str) -> bool:
    """Whether `revision` needs other replicas of `deployment` than those that serve."""
    serving = application.serving
    return (
        serving is None
        or deployment not in serving.by_name
        or serving.generation(deployment) != revision.generation(deployment)
    )


def _is_ready(application: Application, revision: Revision, deployment: DeploymentSpec) -> bool:
    generation = revision.generation(deployment.name)
    return application.ready_count(deployment, generation) >= application.count(revision, deployment)


# ---- where each deployment moves


def _moves(application: Application) -> list[Move]:
    """Return the moves of all deployments, those of the serving revision first."""
    if application.deleting:
        return []
    serving, wanted = application.serving, application.wanted
    moves = []
    for deployment in serving.spec.deployments if serving is not None else ():
        moves += _moves_of_serving(application, deployment)
    if wanted is not None and wanted is not serving:
        for deployment in wanted.spec.deployments:
            if _is_new(application, wanted, deployment.name) and not _is_batched(
                application, wanted, deployment.name
            ):
                moves.append(_move(application, wanted, deployment))
    return moves


def _moves_of_serving(application: Application, deployment: DeploymentSpec) -> list[Move]:
    serving, wanted, target = application.serving, application.wanted, application.target
    assert serving is not None
    name = deployment.name
    if wanted is not None and wanted is not serving and _is_new(application, wanted, name):
        successor = wanted.by_name.get(name)
        if successor is not None and name in wanted.batched:
            generation = wanted.generation(name)
            if application.of(name, generation) or not _waits_for_children(application, wanted, successor):
                others = _joined(application, name, generation)
                bounds = limits_of(successor.options, application.count(wanted, successor))
                return [_move(application, wanted, successor, others, bounds, joins=True)]
        elif exclusive(deployment.options.resources):
            # What is to be replaced takes no GPU from what replaces it.
            return []
        # Neither do the replicas of the next revision take part in this move.
        joined = _joined(application, name, serving.generation(name))
        others = tuple(r for r in joined if r.launch.generation != wanted.generation(name))
        return [_move(application, serving, deployment, others)]
    others = _joined(application, name, serving.generation(name))
    failed = target.by_name.get(name) if target is not None and application.failure else None
    # An update in batches that was given up goes back in batches.
    is_batched = target is not None and name in target.batched
    count = application.count(serving, deployment)
    limits = limits_of(failed.options, count) if failed is not None and is_batched else None
    return [_move(application, serving, deployment, others, limits)]


def _move(
    application: Application,
    revision: Revision,
    deployment: DeploymentSpec,
    others: tuple[Replica, ...] = (),
    limits: Limits | None = None,
    *,
    joins: bool = False,
) -> Move:
    scaler = application.scaler(revision, deployment.name)
    return Move(
        revision,
        deployment,
        wanted=application.count(revision, deployment),
        ongoing=None if scaler is None else scaler.ongoing,
        others=others,
        limits=limits,
        joins=joins,
    )


def _is_batched(application: Application, wanted: Revision, deployment: str) -> bool:
    serving = application.serving
    return serving is not None and deployment in serving.by_name and deployment in wanted.batched


def _waits_for_children(application: Application, wanted: Revision, deployment: DeploymentSpec) -> bool:
    """Whether a new parent would find no new child, or too few of them."""
    children = (wanted.by_name.get(child) for child in deployment.children)
    return any(
        child is not None
        and _is_new(application, wanted, child.name)
        and not _is_ready(application, wanted, child)
        for child in children
    )


def _joined(application: Application, deployment: str, without: int) -> tuple[Replica, ...]:
    """Return who takes requests of the serving revision, or did and is on its way out, but one generation."""
    return tuple(
        replica
        for generation in application.replicas.generations(deployment)
        if generation != without
        for replica in application.replicas.of(deployment, generation)
        if application.serves(replica)
    )


# ---- who leaves


def _outdated(application: Application) -> list[tuple[Replica, str]]:
    """Return the replicas that no revision needs and whose callers are gone."""
    reason = "the application is deleted" if application.deleting else "its revision is replaced"
    kept = {
        (name, revision.generation(name))
        for revision in (application.serving, application.wanted)
        if revision is not None
        for name in revision.by_name
    }
    outdated = [
        replica
        for key in application.replicas.groups()
        if key not in kept
        for replica in application.replicas.of(*key)
        # One that takes requests of the serving revision leaves when others take its place.
        if application.deleting or not (application.serves(replica) and replica.live)
    ]
    # A parent that still finishes requests needs its children. One that stays calls the new ones.
    callers = {
        (r.launch.deployment, child, generation)
        for r in outdated
        if r.phase is not ReplicaPhase.STARTING
        for child, generation in r.launch.generations.items()
    }
    return [
        (replica, reason)
        for replica in outdated
        if replica.live and (replica.phase is ReplicaPhase.STARTING or not _is_called(replica, callers))
    ]


def _is_called(replica: Replica, callers: set[tuple[str, str, int]]) -> bool:
    launch = replica.launch
    return any((parent, launch.deployment, launch.generation) in callers for parent in launch.parents)


def _making_room(application: Application, leaving: Container[str]) -> list[tuple[Replica, str]]:
    """Return the replicas that must leave before those that shall come find a place."""
    goal = application.goal
    if goal is None:
        return []
    blocked = [name for name in goal.by_name if application.record(name, goal.generation(name)).blocked]
    if not blocked:
        return []
    old = [
        r
        for name, generation in application.replicas.groups()
        if name not in goal.by_name or generation != goal.generation(name)
        for r in application.replicas.of(name, generation)
        if exclusive(r.launch.options.resources)
    ]
    if any(not r.live or r.replica_id in leaving for r in old):
        # One is on its way out already; what it gives back may be enough.
        return []
    for name in blocked:
        own = [r for r in old if r.launch.deployment == name]
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


# ---- who changes in place


def _reconfigures(application: Application, leaving: Container[str]) -> list[Action]:
    """Return the orders to the replicas that serve with options of an earlier revision."""
    serving = application.serving
    if serving is None:
        return []
    return [
        ReconfigureReplica(replica.replica_id, serving.number)
        for name in serving.by_name
        for replica in application.replicas.of(name, serving.generation(name))
        if replica.phase is ReplicaPhase.READY
        and max(replica.configured, replica.asked) < serving.config(name)
        and replica.replica_id not in leaving
    ]
