"""What waits in a batch queue: one call each, for one answer or for a stream of them.

A stream's generator goes on while a caller has fewer than `AHEAD` unread answers: the fastest reader sets the
pace, and a slow one holds up nobody. One that is `MAX_UNREAD` behind loses its stream, so memory is bounded.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from typing import Any

from trygon.dataplane.batching import BatchItem
from trygon.dataplane.context import RequestContext
from trygon.errors import ServeError

__all__ = ["AHEAD", "MAX_UNREAD", "CallItem", "StreamItem", "UnaryItem", "feed"]

#: Unread answers of the fastest reader before the generator waits.
AHEAD = 16
#: Unread answers of a caller before its stream fails.
MAX_UNREAD = 10_000

_NEVER = float("inf")


class CallItem(BatchItem):
    """One call of a batched function."""

    __slots__ = ("args", "kwargs", "on_left", "request")

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        group: Hashable,
        *,
        arrived_at: float,
        request: RequestContext,
    ) -> None:
        value = args[0] if args else next(iter(kwargs.values()), None)
        super().__init__(value, group, arrived_at=arrived_at, deadline=request.deadline or _NEVER)
        self.args = args
        self.kwargs = kwargs
        self.request = request
        #: Called once when the caller gives up while its batch runs.
        self.on_left: Callable[[], None] | None = None

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for more."""
        raise NotImplementedError

    def answer(self, result: Any) -> None:
        """Give the caller a result; it is not gone."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Give the caller an error, unless nobody waits for more."""
        raise NotImplementedError


class UnaryItem(CallItem):
    """A call that waits for one answer."""

    __slots__ = ("future",)

    #: Cancelled when the caller gives up.
    future: asyncio.Future[Any]

    def answer(self, result: Any) -> None:
        """Return `result` from the call."""
        self.future.set_result(result)

    @property
    def is_gone(self) -> bool:
        """Whether the call was answered or given up."""
        return self.future.done()

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the caller."""
        if self.future.done():
            return
        if isinstance(error, asyncio.CancelledError):
            self.future.cancel()
            return
        self.future.set_exception(error)
        # A caller that leaves in this very moment never asks; that is no fault to be logged.
        self.future.exception()


class StreamItem(CallItem):
    """A call that waits for a stream of answers."""

    __slots__ = ("_error", "_is_ended", "_reader", "_room", "_unread", "_waiter")

    def start(self, leave: Callable[[StreamItem], None]) -> AsyncGenerator[Any, None]:
        """Return the caller's stream; `leave` is called when it was read to its end, closed, or forgotten."""
        self._unread: deque[Any] = deque()
        self._is_ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        stream = self._read(leave)

        def forget(_: object) -> None:
            # One that was never begun has no `finally` that would run.
            leave(self)
            self.end()

        self._reader = weakref.ref(stream, forget)
        return stream

    async def _read(self, leave: Callable[[StreamItem], None]) -> AsyncGenerator[Any, None]:
        try:
            while self._unread or not self._is_ended:
                if not self._unread:
                    self._waiter = asyncio.get_running_loop().create_future()
                    await self._waiter
                    continue
                result = self._unread.popleft()
                self._tell_feeder()
                yield result
            if self._error is not None:
                raise self._error
        finally:
            leave(self)
            self.end()

    @property
    def is_gone(self) -> bool:
        """Whether the stream has ended or nobody reads it any more."""
        return self._is_ended

    @property
    def num_unread(self) -> int:
        """Answers that wait for the reader."""
        return len(self._unread)

    def answer(self, result: Any) -> None:
        """Add an answer; `StopIteration` or `StopAsyncIteration` ends the stream."""
        if (
            result is StopIteration
            or result is StopAsyncIteration
            or isinstance(result, StopIteration | StopAsyncIteration)
        ):
            self.end()
        elif len(self._unread) >= MAX_UNREAD:
            self.fail(ServeError(f"the reader of a batched stream is {MAX_UNREAD} answers behind"))
        else:
            self._unread.append(result)
            self._tell_reader()

    def end(self) -> None:
        """End the stream after what is unread."""
        self._is_ended = True
        self._tell_reader()
        self._tell_feeder()

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the reader after what is unread."""
        if not self._is_ended:
            self._error = error
            self.end()

    def tell_room(self, room: asyncio.Future[None]) -> None:
        """Set `room` done when the reader took an answer or left."""
        self._room = room

    def _tell_reader(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _tell_feeder(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


async def feed(
    generator: AsyncGenerator[Any, None],
    items: Sequence[StreamItem],
    check: Callable[[Any], Sequence[Any]],
) -> None:
    """Hand out what `generator` yields, one of each list to each item, until it ends or nobody reads."""
    try:
        async for results in generator:
            for item, result in zip(items, check(results), strict=True):
                if not item.is_gone:
                    item.answer(result)
            await _wait_room(items)
            if all(item.is_gone for item in items):
                break
        for item in items:
            item.end()
    finally:
        await generator.aclose()


async def _wait_room(items: Sequence[StreamItem]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        live = [item for item in items if not item.is_gone]
        if not live or any(item.num_unread < AHEAD for item in live):
            return
        room: asyncio.Future[None] = loop.create_future()
        for item in live:
            item.tell_room(room)
        await room
