"""The life of one replica: one table from (phase, event) to the next phase. Pure.

STARTING -> READY -> DRAINING -> STOPPED is the ordinary life.
FAILED is a replica that is broken while its process may still be there; STOPPED has no process left.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = [
    "LIVE",
    "InvalidTransition",
    "ReplicaEventKind",
    "ReplicaPhase",
    "Trouble",
    "TroubleKind",
    "next_phase",
]


class ReplicaPhase(StrEnum):
    """Where a replica is in its life."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


#: Replicas that count towards the wanted number.
LIVE = frozenset({ReplicaPhase.STARTING, ReplicaPhase.READY})


class ReplicaEventKind(StrEnum):
    """What can happen to a replica."""

    REPORTED_READY = "REPORTED_READY"
    REPORTED_BROKEN = "REPORTED_BROKEN"
    GIVEN_UP = "GIVEN_UP"
    TOLD_TO_LEAVE = "TOLD_TO_LEAVE"
    UNPLACED = "UNPLACED"
    ENDED = "ENDED"


class TroubleKind(StrEnum):
    """Why a replica does not answer although its process is there."""

    #: The watchdog thread speaks and the loop does not, or native code works and holds the interpreter lock.
    BLOCKED = "BLOCKED"
    #: The process does nothing at all.
    FROZEN = "FROZEN"


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What ails a replica that has not ended, as it was last measured."""

    kind: TroubleKind
    #: Monotonic; the last sign of life of a frozen process, or when the loop was seen to stop.
    since: float
    #: How long that was ago when it was measured; for people.
    for_s: float
    #: What the loop does instead, as "file:line".
    where: str = ""
    #: The kernel says that the process is stopped, so no mistake is possible.
    stopped: bool = False


class InvalidTransition(Exception):
    """An event that cannot happen to a replica in its phase."""


_P, _E = ReplicaPhase, ReplicaEventKind
_TRANSITIONS: dict[tuple[ReplicaPhase, ReplicaEventKind], ReplicaPhase] = {
    (_P.STARTING, _E.REPORTED_READY): _P.READY,
    (_P.STARTING, _E.REPORTED_BROKEN): _P.FAILED,
    (_P.STARTING, _E.TOLD_TO_LEAVE): _P.DRAINING,
    (_P.STARTING, _E.UNPLACED): _P.STOPPED,
    (_P.STARTING, _E.ENDED): _P.STOPPED,
    # A replica reports again to a controller that was restarted.
    (_P.READY, _E.REPORTED_READY): _P.READY,
    (_P.READY, _E.REPORTED_BROKEN): _P.FAILED,
    (_P.READY, _E.GIVEN_UP): _P.FAILED,
    (_P.READY, _E.TOLD_TO_LEAVE): _P.DRAINING,
    (_P.READY, _E.ENDED): _P.STOPPED,
    # A report may cross the order to leave.
    (_P.DRAINING, _E.REPORTED_READY): _P.DRAINING,
    (_P.DRAINING, _E.REPORTED_BROKEN): _P.DRAINING,
    (_P.DRAINING, _E.GIVEN_UP): _P.DRAINING,
    (_P.DRAINING, _E.UNPLACED): _P.STOPPED,
    (_P.DRAINING, _E.ENDED): _P.STOPPED,
    (_P.FAILED, _E.REPORTED_READY): _P.FAILED,
    (_P.FAILED, _E.REPORTED_BROKEN): _P.FAILED,
    (_P.FAILED, _E.GIVEN_UP): _P.FAILED,
    (_P.FAILED, _E.ENDED): _P.STOPPED,
}


def next_phase(phase: ReplicaPhase, event: ReplicaEventKind) -> ReplicaPhase:
    """Return the phase after `event`.

    Raises:
        InvalidTransition: The event cannot happen in this phase.
    """
    try:
        return _TRANSITIONS[phase, event]
    except KeyError:
        raise InvalidTransition(f"{event} cannot happen to a replica that is {phase}") from None
