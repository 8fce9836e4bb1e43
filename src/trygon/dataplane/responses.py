"""What `handle.remote()` returns: a result to be, or a stream of items to be."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, NoReturn

from trygon.dataplane.direct import hand_over, wait_on_line
from trygon.dataplane.handle_calls import HandleCall, StreamCall, UnaryCall
from trygon.dataplane.runtime import Runtime
from trygon.errors import InstanceError, RequestCancelledError, SerializationError

__all__ = ["DeploymentResponse", "DeploymentResponseGenerator"]


def _refuse_running_loop(what: str, instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"{what} would block the running event loop; use {instead} in async code")


class _Response:
    """What both kinds share."""

    _call: HandleCall
    _runtime: Runtime

    @property
    def request_id(self) -> str:
        """The id that follows the request through every process and log line."""
        return self._call.meta.request_id

    def cancel(self) -> None:
        """Ask for the request to be cancelled; best effort, and so are its child calls.

        Async user code sees `asyncio.CancelledError`; a synchronous method that has begun runs to its end.
        Awaiting the response afterwards raises `RequestCancelledError`, unless the result was there first.
        """
        self._call.was_cancelled = True
        if not self._call.outcome.is_done:
            self._runtime.call(self._call.cancel)

    def cancelled(self) -> bool:
        """Whether `cancel` was called, or the request ended by being cancelled elsewhere."""
        return self._call.was_cancelled or isinstance(self._call.outcome.error, RequestCancelledError)

    def __reduce__(self) -> NoReturn:
        raise SerializationError(
            f"a {type(self).__name__} cannot be sent to another process; pass it as a top-level argument of "
            "another handle call (it is resolved first), or await it and send its result"
        )


class DeploymentResponse(_Response):
    """The result of one call, to be awaited, waited for, or passed on to another call.

    Await it in async code, call `result` in sync code, or give it unfinished as an argument to
    another `.remote()`: the second call starts when the first has its result.
    """

    __slots__ = ("_call", "_runtime")

    def __init__(self, call: UnaryCall, runtime: Runtime) -> None:
        self._call: UnaryCall = call
        self._runtime = runtime

    def __await__(self) -> Generator[Any, None, Any]:
        outcome = self._call.outcome
        if not outcome.is_done:
            hand_over(self._runtime, self._call)
            try:
                yield from outcome.wait().__await__()
            except asyncio.CancelledError:
                self.cancel()
                raise
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def result(self, *, timeout_s: float | None = None) -> Any:
        """Return the result, blocking this thread.

        Args:
            timeout_s: Seconds to wait; None waits as long as it takes. The request goes on after a timeout.

        Raises:
            TimeoutError: The result was not there in time.
            RuntimeError: Called in a running event loop.
            TaskError: User code raised; it is also of the type that was raised.
            ReplicaDiedError: The replica died while it had the request.
            RequestCancelledError: The request was cancelled.
        """
        _refuse_running_loop("DeploymentResponse.result()", "`await response`")
        call = self._call
        if not call.outcome.is_done:
            left_s = timeout_s
            line = call.line
            if line is None:
                self._runtime.waits.is_blocking = True
            elif self._runtime.is_alive:
                left_s = wait_on_line(self._runtime, call, line, timeout_s)
            else:
                raise InstanceError(
                    "this response belongs to the process that made the call, or to an instance that was shut down; "
                    "make the call again"
                )
            if not call.outcome.wait_blocking(left_s):
                raise TimeoutError(f"no result of request {self.request_id} within {timeout_s} s")
        return call.outcome.get()

    def __del__(self) -> None:
        call = getattr(self, "_call", None)
        if call is not None and call.line is not None and not call.outcome.is_done:
            hand_over(self._runtime, call)

    @property
    def by_reference(self) -> bool:
        """Whether a result passed on is fetched by its consumer; always False here: values travel."""
        return False

    def __repr__(self) -> str:
        state = "done" if self._call.outcome.is_done else "pending"
        return f"<DeploymentResponse {self._call.meta.method} {self.request_id} {state}>"


class DeploymentResponseGenerator(_Response, AsyncIterator[Any], Iterator[Any]):
    """The items that a generator method yields, as they come; iterate with `async for` or `for`.

    The remote generator runs at most a small window ahead. Leaving early cancels it.
    """

    def __init__(self, call: StreamCall, runtime: Runtime) -> None:
        self._call: StreamCall = call
        self._runtime = runtime

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        call = self._call
        while not call.items:
            # In this order: items that arrive from the loop's thread just before the end come first.
            if call.outcome.is_done and not call.items:
                raise call.outcome.error or StopAsyncIteration
            waiter = asyncio.get_running_loop().create_future()
            try:
                if self._runtime.is_here:
                    call.on_next_item(functools.partial(_finish, waiter))
                else:
                    self._runtime.call(call.on_next_item, _waker(asyncio.get_running_loop(), waiter))
                await waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self._take()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        _refuse_running_loop("iterating a DeploymentResponseGenerator with `for`", "`async for`")
        call = self._call
        while not call.items:
            if call.outcome.is_done and not call.items:
                raise call.outcome.error or StopIteration
            gate = threading.Lock()
            gate.acquire()
            self._runtime.call(call.on_next_item, gate.release)
            gate.acquire()
        return self._take()

    def _take(self) -> Any:
        item, cost = self._call.items.popleft()
        self._runtime.call(self._call.took, cost)
        return item

    async def aclose(self) -> None:
        """Cancel the remote generator if it has not ended."""
        self.cancel()

    def close(self) -> None:
        """Cancel the remote generator if it has not ended."""
        self.cancel()

    def __del__(self) -> None:
        call = getattr(self, "_call", None)
        if call is not None and not call.outcome.is_done and not self._runtime.loop.is_closed():
            # Never in place: the collector may run in the middle of the router's own work.
            with contextlib.suppress(RuntimeError):
                self._runtime.loop.call_soon_threadsafe(call.cancel)

    def __await__(self) -> NoReturn:
        raise TypeError("a streaming response cannot be awaited; iterate it with `async for`")

    def result(self, *, timeout_s: float | None = None) -> NoReturn:
        """Refuse: a stream has no single result."""
        raise TypeError("a streaming response has no single result; iterate it with `for` or `async for`")

    def __repr__(self) -> str:
        return f"<DeploymentResponseGenerator {self._call.meta.method} {self.request_id}>"


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _waker(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> Callable[[], None]:
    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the waiter's loop was closed, so nobody waits
            loop.call_soon_threadsafe(_finish, waiter)

    return wake
