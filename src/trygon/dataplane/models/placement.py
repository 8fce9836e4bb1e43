"""Which replica takes a request that is for a model: the same one from every caller, without any news of it.

Rendezvous hashing with a bound on the load: each pair of model and replica has a score, and of the replicas with
room the one with the best score takes the request, unless it has much more work than the others: then the model is
hot, and the next best takes it, and keeps a copy of its own. A replica that comes or goes moves only its own models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol, TypeVar

from trygon.dataplane.balancing import Candidate, choose

__all__ = ["NamedCandidate", "place"]

#: A replica has much work when it has more than so many requests beside twice the mean.
SLACK = 8

_MASK = 0xFFFFFFFFFFFFFFFF


class NamedCandidate(Candidate, Protocol):
    """What the rule looks at."""

    #: The same for every caller.
    replica_id: str


N = TypeVar("N", bound=NamedCandidate)


def place(candidates: Sequence[N], model_id: str, draw: int) -> N | None:
    """Return the replica for a request for `model_id`, or None if the request has to wait.

    Without a model it is the rule for all requests, `choose`.
    """
    if not model_id or len(candidates) < 2:
        return choose(candidates, draw)
    able = [one for one in candidates if one.has_room and not one.is_suspect]
    if not able:
        return choose(candidates, draw)
    loads = [one.ongoing + one.others for one in candidates]
    bound = 2 * sum(loads) / len(loads) + SLACK
    cool = [one for one in able if one.ongoing + one.others <= bound]
    model = _number(model_id)
    return max(cool or able, key=lambda one: _mix(model ^ _number(one.replica_id)))


@lru_cache(maxsize=8192)
def _number(name: str) -> int:
    """Return 64 bits that are the same in every process, as `hash` is not."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mix(number: int) -> int:
    """Spread the bits (the finalizer of splitmix64): a plain xor would favour some replicas."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)
