"""Which replica takes a request that is for a model: pure rules over what a caller knows of each replica.

A replica that has the model takes it, unless it has much more work than the others: then the model is hot, and one
more replica loads it, and only one at a time. A replica that is loading it is waited for, even if it does not answer
pings meanwhile. A model that nobody has goes
where rendezvous hashing says: each pair of model and replica has a score, and the best one with room that has not much
more work than the others takes it. So a cold model has the same place for every caller, without any news, and a
replica that comes or goes moves only its own models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol, TypeVar

from trygon.dataplane.balancing import Candidate, choose
from trygon.dataplane.models.news import ModelState

__all__ = ["NamedCandidate", "place"]

#: A replica has much work when it has more than so many requests beside twice the mean.
SLACK = 8

_MASK = 0xFFFFFFFFFFFFFFFF


class NamedCandidate(Candidate, Protocol):
    """What the rule looks at."""

    #: The same for every caller.
    replica_id: str

    @property
    def models(self) -> Mapping[str, ModelState]:
        """What it told of its models."""


N = TypeVar("N", bound=NamedCandidate)


def place(candidates: Sequence[N], model_id: str, draw: int, *, expected: str = "") -> N | None:
    """Return the replica for a request for `model_id`, or None if the request has to wait.

    Without a model it is the rule for all requests, `choose`.

    Args:
        candidates: Every replica of the deployment.
        model_id: The model.
        draw: A random number of at least 32 bits.
        expected: The replica that was sent a request for this model a moment ago, and has not told of it yet.
    """
    if not model_id or len(candidates) < 2:
        return choose(candidates, draw)
    bound = 2 * sum(map(_work, candidates)) / len(candidates) + SLACK
    loaded: list[N] = []
    loading: list[N] = []
    for one in candidates:
        if not one.has_room:
            continue
        state = one.models.get(model_id)
        if state is ModelState.LOADING or (state is None and one.replica_id == expected):
            # Suspect or not: it is often the load that blocks it, and would block the next one too.
            loading.append(one)
        elif state is not None and not one.is_suspect:
            loaded.append(one)
    cool = [one for one in loaded if _work(one) <= bound]
    if cool or (loaded and loading):
        return min(cool or loaded, key=_rank)
    if loading:
        return min(loading, key=_rank)
    able = [one for one in candidates if one.has_room and not one.is_suspect]
    if not able:
        return choose(candidates, draw)
    others = [one for one in able if one not in loaded and _work(one) <= bound]
    model = _number(model_id)
    return max(others or loaded or able, key=lambda one: _mix(model ^ _number(one.replica_id)))


def _work(one: Candidate) -> int:
    return one.ongoing + one.others


def _rank(one: NamedCandidate) -> tuple[int, int]:
    """Least work first, then fewest models."""
    return one.ongoing + one.others, len(one.models)


@lru_cache(maxsize=8192)
def _number(name: str) -> int:
    """Return 64 bits that are the same in every process, as `hash` is not."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mix(number: int) -> int:
    """Spread the bits (the finalizer of splitmix64): a plain xor would favour some replicas."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)
