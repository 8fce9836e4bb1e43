"""How one deployment moves to the replicas it shall have: whole, or in batches. Pure.

A move knows which replicas stay (the generation it moves to, with a rank below the wanted number) and which go
(everybody else who takes requests for it). It starts the ranks that are missing and lets the others go as
ready ones take their place, so that the number of ready replicas never falls below what its limits allow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from trygon.control.actions import StartReplica
from trygon.control.reconcile.deployment import may_start
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.state import Application, Replica, Revision
from trygon.spec.application import DeploymentOptions, DeploymentSpec

__all__ = ["Limits", "Move", "limits_of", "plan_move"]


class Limits(msgspec.Struct, frozen=True):
    """The bounds of a batched update."""

    #: Processes beyond the wanted number, those that still drain included.
    extra: int
    #: Replicas that start, or are missing, at one moment.
    batch: int

    @property
    def stops_first(self) -> bool:
        """Whether an old replica goes before the new one comes."""
        return self.extra == 0


class Move(msgspec.Struct, frozen=True):
    """Where one deployment moves."""

    #: The revision whose specification the replicas get.
    revision: Revision
    deployment: DeploymentSpec
    #: How many replicas it shall have.
    wanted: int
    #: Requests in work by replica id, where those with the fewest go first; None lets the highest ranks go.
    ongoing: Mapping[str, int] | None = None
    #: Those that go as others become ready.
    others: tuple[Replica, ...] = ()
    #: None starts all that is missing at once.
    limits: Limits | None = None
    #: Whether the replicas take requests before the revision is complete.
    joins: bool = False


def limits_of(options: DeploymentOptions, wanted: int) -> Limits:
    """Return the bounds that the options of the new revision set, where so many replicas are wanted."""
    if options.max_surge_percent is None:
        return Limits(extra=wanted, batch=wanted)
    return Limits(
        extra=math.ceil(wanted * options.max_surge_percent / 100),
        batch=max(1, int(options.rolling_update_percentage * wanted)),
    )


def plan_move(
    application: Application, move: Move, now: float
) -> tuple[list[StartReplica], list[Replica], float | None]:
    """Return what to start, who is to go, and when to look again if a pause must end first."""
    name, wanted = move.deployment.name, move.wanted
    generation = move.revision.generation(name)
    # Helpers come and go with the health of others. Were one let go here, it would be started again at once.
    own = [r for r in application.of(name, generation) if r.live and not r.launch.is_helper]
    replaced = [r for r in move.others if not r.launch.is_helper]
    new, surplus = _kept(own, move)
    others = surplus + [r for r in replaced if r.live]
    leaving = sum(1 for r in replaced if not r.live)
    record = application.record(name, generation)
    is_moving = bool(others or leaving)
    limits = move.limits if is_moving else None
    # A start that failed stops the update until one succeeds.
    is_held = bool(record.failures) and not record.crashed
    spare = limits.batch if limits is not None and limits.stops_first and not is_held else 0
    gone = _leavers(new, others, wanted - spare)
    missing = _free_ranks(new, others, wanted)
    if limits is not None:
        room = wanted + limits.extra - len(new) - len(others) - leaving
        starting = sum(1 for r in new if r.phase is ReplicaPhase.STARTING)
        missing = missing[: max(0, min(room, limits.batch - starting))]
    if not missing:
        return [], gone, None
    allowed, wake_at = may_start(record, now)
    if not allowed:
        return [], gone, wake_at
    number = move.revision.number
    return (
        [StartReplica(application.name, number, name, rank, joins=move.joins) for rank in missing],
        gone,
        None,
    )


def _kept(own: list[Replica], move: Move) -> tuple[list[Replica], list[Replica]]:
    """Return who stays, and who is too many."""
    ongoing = move.ongoing
    if ongoing is None:
        # Ranks stay contiguous when a deployment shrinks: the highest go.
        kept = [r for r in own if r.launch.rank < move.wanted]
        return kept, [r for r in own if r.launch.rank >= move.wanted]
    # What starts has no request yet, and a start that is called off costs least.
    own = sorted(
        own,
        key=lambda r: (
            r.phase is ReplicaPhase.STARTING,
            -ongoing.get(r.replica_id, 0),
            r.launch.rank,
        ),
    )
    return own[: move.wanted], own[move.wanted :]


def _leavers(new: list[Replica], others: list[Replica], at_least: int) -> list[Replica]:
    """Return which of `others` may go while `at_least` stay ready."""
    idle = [r for r in others if r.phase is ReplicaPhase.STARTING]
    ready = [r for r in others if r.phase is ReplicaPhase.READY]
    count = len(ready) + sum(1 for r in new if r.phase is ReplicaPhase.READY) - at_least
    taken = {r.launch.rank for r in new}
    # Two that share a rank do so for as short as can be; then the highest first.
    ready.sort(key=lambda r: (r.launch.rank not in taken, -r.launch.rank, r.replica_id))
    return idle + ready[: max(0, count)]


def _free_ranks(new: list[Replica], others: Iterable[Replica], wanted: int) -> list[int]:
    """Return the ranks that nobody of `new` has, those that nobody has first."""
    taken = {r.launch.rank for r in new}
    shared = {r.launch.rank for r in others}
    free = sorted(set(range(wanted)) - taken, key=lambda rank: (rank in shared, rank))
    # Where idle ones went first, those that stayed may have higher ranks.
    return free[: max(0, wanted - len(new))]
