"""What one caller knows of the places of a deployment's models; made by its first request that names one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from trygon.dataplane.models.placement import NamedCandidate, place

__all__ = ["EXPECTED_S", "LOOK_AHEAD", "ModelPlaces"]

#: A replica that was sent a request for a model it has not counts as loading it for so long, unless it says better:
#: its news takes a round trip, in which a thousand more may be asked for.
EXPECTED_S = 1.0
#: Requests that wait among which a replica with room finds one that it has the model for.
LOOK_AHEAD = 16
#: Models that are expected somewhere; names come from outside.
_MAX_EXPECTED = 1024


class _Waiting(Protocol):
    @property
    def model_id(self) -> str:
        """The model that it is for, or an empty string."""


C = TypeVar("C", bound=NamedCandidate)
W = TypeVar("W", bound=_Waiting)


class ModelPlaces:
    """Sends requests to where their model is, or will be in a moment. `choose` may be called by any thread."""

    __slots__ = ("_expected", "_num_passed")

    def __init__(self) -> None:
        #: Where a model will be, by this caller's own requests, and until when that is believed.
        self._expected: dict[str, tuple[str, float]] = {}
        #: How often the request that waits first was passed over.
        self._num_passed = 0

    def choose(self, candidates: Sequence[C], model_id: str, draw: int, now: float) -> C | None:
        """Return the replica for a request for `model_id`, or None if it has to wait."""
        replica_id, until = self._expected.get(model_id, ("", 0.0))
        chosen = place(candidates, model_id, draw, expected=replica_id if now < until else "")
        if chosen is not None:
            self._remember(chosen, model_id, now)
        return chosen

    def _remember(self, chosen: NamedCandidate, model_id: str, now: float) -> None:
        if model_id in chosen.models:
            self._expected.pop(model_id, None)
            return
        replica_id, until = self._expected.get(model_id, ("", 0.0))
        if replica_id == chosen.replica_id and now < until:
            return
        if len(self._expected) >= _MAX_EXPECTED:
            # All at once, which is safe in threads too: they are worth a round trip.
            self._expected.clear()
        self._expected[model_id] = chosen.replica_id, now + EXPECTED_S

    def take_next(
        self, queue: OrderedDict[W, float], candidate: NamedCandidate, now: float
    ) -> tuple[W, float]:
        """Take the request out of `queue` that `candidate`, which has room, is to get; also since when it waits.

        Of the first few that wait it is the first whose model the replica has, or that names none. If there is none,
        loading is better than an idle replica, and the first of all is taken; so it is when it was passed over often.
        """
        first = next(iter(queue))
        taken = first
        if self._num_passed < LOOK_AHEAD:
            taken = _first_that_fits(islice(queue, LOOK_AHEAD), candidate) or first
        self._num_passed = 0 if taken is first else self._num_passed + 1
        since = queue.pop(taken)
        if taken.model_id:
            self._remember(candidate, taken.model_id, now)
        return taken, since


def _first_that_fits(waiting: Iterable[W], candidate: NamedCandidate) -> W | None:
    for one in waiting:
        if not one.model_id or one.model_id in candidate.models:
            return one
    return None
