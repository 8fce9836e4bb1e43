"""Which replica takes a request: pure rules over what a caller knows of each replica.

Power of two choices (Mitzenmacher, 2001): of two replicas drawn at random take the one with
less work. Work is this caller's own exact count plus what others were last heard to have there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["Candidate", "choose"]


class Candidate(Protocol):
    """What the rules look at."""

    #: Requests of this caller that the replica has not finished.
    ongoing: int
    #: Requests of other callers there, as of the last answer.
    others: int
    #: True while the replica does not answer pings: frozen, or its loop is blocked.
    is_suspect: bool

    @property
    def has_room(self) -> bool:
        """False while it must not be chosen: full, draining, not connected."""


C = TypeVar("C", bound=Candidate)


def choose(candidates: Sequence[C], draw: int) -> C | None:
    """Return the replica for the next request, or None if the request has to wait.

    Replicas with room and a live loop come first; a suspect one is taken only when
    every other has left, so that a deployment with one blocked replica still gets its requests
    when the replica wakes up.

    Args:
        candidates: Every replica of the deployment.
        draw: A random number of at least 32 bits; the only chance in the rule.
    """
    count = len(candidates)
    if count == 1:
        only = candidates[0]
        return only if only.has_room else None
    if count == 0:
        return None
    one, two = _draw_two(candidates, count, draw)
    if not (one.has_room and two.has_room) or one.is_suspect or two.is_suspect:
        open_ones = _open(candidates)
        count = len(open_ones)
        if count < 2:
            return open_ones[0] if open_ones else None
        one, two = _draw_two(open_ones, count, draw)
    return one if one.ongoing + one.others <= two.ongoing + two.others else two


def _draw_two(candidates: Sequence[C], count: int, draw: int) -> tuple[C, C]:
    first = draw % count
    second = (draw >> 16) % (count - 1)
    return candidates[first], candidates[second + 1 if second >= first else second]


def _open(candidates: Sequence[C]) -> list[C]:
    awake = [c for c in candidates if not c.is_suspect]
    return [c for c in awake or candidates if c.has_room]
