"""The built-in rules beside power of two choices: pure functions over what a caller knows of each replica."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TypeVar

from trygon.dataplane.balancing import Candidate
from trygon.dataplane.models.placement import NamedCandidate

__all__ = ["SLACK", "HashRing", "best_of", "first_cool", "least_loaded", "next_in_turn"]

#: A replica has too much work for one more key when it has more than so many requests beside twice the mean.
SLACK = 8

C = TypeVar("C", bound=Candidate)
N = TypeVar("N", bound=NamedCandidate)


def _able(candidates: Iterable[C]) -> list[C]:
    """Return those with room; suspect ones only when there are no others."""
    found = [one for one in candidates if one.has_room]
    return [one for one in found if not one.is_suspect] or found


def least_loaded(candidates: Sequence[C], draw: int) -> C | None:
    """Return a replica with the least work, drawn among equals; None if the request has to wait."""
    able = _able(candidates)
    if not able:
        return None
    least = min(one.ongoing + one.others for one in able)
    idle = [one for one in able if one.ongoing + one.others == least]
    return idle[draw % len(idle)]


def next_in_turn(candidates: Sequence[N], last: str) -> N | None:
    """Return the replica with room that follows the replica `last` in the order of their ids; None to wait."""
    able = _able(candidates)
    if not able:
        return None
    after = [one for one in able if one.replica_id > last]
    return min(after or able, key=lambda one: one.replica_id)


def best_of(candidates: Iterable[C]) -> C | None:
    """Return the candidate with room and the least work, the first of equals; None without one."""
    return min(_able(candidates), key=lambda one: one.ongoing + one.others, default=None)


class HashRing:
    """Consistent hashing: a key belongs to the replica whose point follows the key's on a ring.

    A replica that comes or goes moves only the keys at its own points. All callers agree without a word.

    Args:
        replica_ids: Everyone who takes requests.
        num_virtual_nodes: Points of each.
    """

    __slots__ = ("_ids", "_owners", "_points")

    def __init__(self, replica_ids: Iterable[str], num_virtual_nodes: int) -> None:
        self._ids = frozenset(replica_ids)
        ring = sorted(
            (_point(f"{replica_id}|{number}"), replica_id)
            for replica_id in self._ids
            for number in range(num_virtual_nodes)
        )
        self._points = [point for point, _ in ring]
        self._owners = [owner for _, owner in ring]

    def holders(self, key: str, count: int) -> tuple[str, ...]:
        """Return the first `count` replicas for `key`, the one it belongs to before the others."""
        count = min(count, len(self._ids))
        found: dict[str, None] = {}
        start = bisect_right(self._points, _point(key))
        owners = self._owners
        for step in range(len(owners)):
            if len(found) == count:
                break
            found[owners[(start + step) % len(owners)]] = None
        return tuple(found)


def first_cool(holders: Sequence[C], candidates: Sequence[C]) -> C | None:
    """Return the holder that takes the request: the first that has room and no more work than is fair.

    Args:
        holders: Who may take it, best first.
        candidates: All replicas, which say what is fair: twice their mean, and some.
    """
    able = [one for one in holders if one.has_room and not one.is_suspect]
    if not able:
        return None
    bound = 2 * sum(one.ongoing + one.others for one in candidates) / len(candidates) + SLACK
    return next((one for one in able if one.ongoing + one.others <= bound), able[0])


def _point(name: str) -> int:
    """Return 64 bits that are the same in every process, as `hash` is not."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
