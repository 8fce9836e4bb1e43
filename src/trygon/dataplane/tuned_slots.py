"""The places of a replica whose number follows how long requests take: ``max_ongoing_requests="auto"``."""

from __future__ import annotations

from collections.abc import Callable

from trygon.dataplane.concurrency import GradientLimit
from trygon.dataplane.slots import Slot, Slots

__all__ = ["TunedSlots"]


class TunedSlots(Slots):
    """Times each request, and asks for another limit when the times say so.

    Args:
        tuner: Says how many.
        on_free: Called when a place was left.
        resize: Called with a new limit.
        now: The time.
    """

    __slots__ = ("_now", "_resize", "_tuner")

    def __init__(
        self,
        tuner: GradientLimit,
        on_free: Callable[[], None],
        resize: Callable[[int], None],
        now: Callable[[], float],
    ) -> None:
        super().__init__(tuner.limit, on_free)
        self._tuner = tuner
        self._resize = resize
        self._now = now

    def take(self, sent: int = 0) -> Slot:
        self.ongoing += 1
        return _TimedSlot(self, sent, self._now())

    def ended(self, began: float) -> None:
        """Hear when a request began whose place is about to be left."""
        now = self._now()
        limit = self._tuner.end(now - began, self.ongoing, now)
        if limit != self.limit:
            self._resize(limit)


class _TimedSlot(Slot):
    __slots__ = ("_began", "_tuned")

    def __init__(self, slots: TunedSlots, sent: int, began: float) -> None:
        super().__init__(slots, sent)
        self._tuned = slots
        self._began = began

    def leave(self, *, wasted_since: float = 0.0) -> None:
        if not self._is_left:
            self._tuned.ended(self._began)
        super().leave(wasted_since=wasted_since)
