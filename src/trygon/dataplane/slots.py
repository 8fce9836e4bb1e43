"""The places of a replica's requests: counted over all callers, taken and left exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from trygon.dataplane.stamps import monotonic

__all__ = ["Slot", "Slots"]


class Slots:
    """At most `limit` requests in work."""

    __slots__ = ("_on_free", "is_ending", "limit", "ongoing", "wasted_s")

    def __init__(self, limit: int, on_free: Callable[[], None]) -> None:
        #: May be changed at any time; requests above a smaller one finish.
        self.limit = limit
        self._on_free = on_free
        #: Requests that hold a slot; at least 0, and none is begun at or above `limit`.
        self.ongoing = 0
        #: True once the time to finish ran out: what is cancelled now was not given up by its caller.
        self.is_ending = False
        #: Seconds that user code worked for answers that nobody received.
        self.wasted_s = 0.0

    @property
    def is_full(self) -> bool:
        """Whether one more must be rejected."""
        return self.ongoing >= self.limit

    def take(self, sent: int = 0) -> Slot:
        """Take a place for a request with this stamp; the caller has looked at `is_full`."""
        self.ongoing += 1
        return Slot(self, sent)

    def free(self) -> None:
        """Give a place back; called by its `Slot`."""
        self.ongoing -= 1
        self._on_free()


class Slot:
    """One request's place.

    A thread cannot be stopped: when the request is cancelled while one works for it, its caller is released
    at once and the place only when the thread returns.
    """

    __slots__ = ("_is_left", "_num_working", "_slots", "_wasted_since", "computed", "sent", "working")

    def __init__(self, slots: Slots, sent: int = 0) -> None:
        self._slots = slots
        #: The stamp of the request's frame, and when user code was done with it; 0 while nobody measures.
        self.sent = sent
        self.computed = 0.0
        self._is_left = False
        #: When the work began that turned out to be for nobody; 0 while somebody waits.
        self._wasted_since = 0.0
        #: Threads that `leave` waits for.
        self._num_working = 0
        #: The thread's work for this request, or None when no thread works for it.
        self.working: Future[Any] | None = None

    def leave_after(self, work: Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Make `leave` wait for `work` of a thread."""
        if not work.done():
            self._num_working += 1
            work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._work_ended))

    def leave(self, *, wasted_since: float = 0.0) -> None:
        """Give the place back, now or when the last thread returns; a second call changes nothing.

        Args:
            wasted_since: When the work began, on the monotonic clock, if nobody received its answer.
        """
        if not self._is_left:
            self._is_left = True
            self._wasted_since = wasted_since
            if not self._num_working:
                self._free()

    def _free(self) -> None:
        if self._wasted_since:
            self._slots.wasted_s += monotonic() - self._wasted_since
        self._slots.free()

    def _work_ended(self) -> None:
        self._num_working -= 1
        if self._is_left and not self._num_working:
            self._free()
