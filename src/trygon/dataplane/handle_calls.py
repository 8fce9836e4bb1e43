"""Calls through a handle, on the loop's side: one answer, or a stream of items."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from trygon.dataplane.fairness import PLAIN
from trygon.dataplane.frames import FrameFlag, FrameKind, encode
from trygon.dataplane.lines import Line
from trygon.dataplane.links import Withdrawable
from trygon.dataplane.messages import CallMeta, ErrorKind, Evidence
from trygon.dataplane.payloads import Payload, PayloadMeta, load
from trygon.dataplane.poison import fingerprint
from trygon.dataplane.segments import open_segment
from trygon.dataplane.stamps import stamp
from trygon.dataplane.task_errors import load_error
from trygon.errors import (
    DeploymentUnavailableError,
    ReplicaDiedError,
    RequestCancelledError,
    RequestTimeoutError,
    SerializationError,
    ServeError,
)

__all__ = [
    "ITEM_COST_BYTES",
    "ITEM_WINDOW_BYTES",
    "CallLink",
    "HandleCall",
    "Outcome",
    "StreamCall",
    "UnaryCall",
]

#: Bytes of stream items that may be under way; each item counts ITEM_COST_BYTES more than its size.
ITEM_WINDOW_BYTES = 128 * 1024
#: Bounds how far a generator of tiny items runs ahead of its reader: about 128 items.
ITEM_COST_BYTES = 1024

_MORE = int(FrameFlag.MORE)
_EXTERNAL = int(FrameFlag.EXTERNAL)
_STREAM = int(FrameFlag.STREAM)
_CALL = int(FrameKind.CALL)
_RESULT = int(FrameKind.RESULT)
_DATA = int(FrameKind.DATA)
_CREDIT = int(FrameKind.CREDIT)

_encode_meta = msgspec.msgpack.Encoder().encode
_decode_payload_meta = msgspec.msgpack.Decoder(PayloadMeta).decode


class Outcome:
    """A value or an error that is set once and may be awaited by any thread or loop."""

    __slots__ = ("_callbacks", "_lock", "error", "is_done", "value")

    def __init__(self) -> None:
        self.is_done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def set(self, value: Any, error: BaseException | None = None) -> None:
        """Set the value or the error; later calls change nothing."""
        with self._lock:
            if self.is_done:
                return
            self.value = value
            self.error = error
            self.is_done = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once: now if it is done, else from the thread that sets it."""
        with self._lock:
            if not self.is_done:
                self._callbacks.append(callback)
                return
        callback()

    async def wait(self) -> None:
        """Wait on the running loop."""
        if self.is_done:
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        thread = threading.get_ident()

        def wake() -> None:
            if threading.get_ident() == thread:
                if not waiter.done():
                    waiter.set_result(None)
                return
            try:
                loop.call_soon_threadsafe(_finish, waiter)
            except RuntimeError:
                return  # the waiter's loop was closed, so nobody waits

        self.when_done(wake)
        await waiter

    def wait_blocking(self, timeout_s: float | None) -> bool:
        """Wait in this thread; False when `timeout_s` passed first."""
        if self.is_done:
            return True
        gate = threading.Lock()
        gate.acquire()
        self.when_done(gate.release)
        if gate.acquire(timeout=-1 if timeout_s is None else max(timeout_s, 0.0)):
            return True
        with self._lock:
            # Whoever polls must not leave a callback behind each time.
            if gate.release in self._callbacks:
                self._callbacks.remove(gate.release)
        return self.is_done

    def get(self) -> Any:
        """Return the value or raise the error; only when done."""
        if self.error is not None:
            raise self.error
        return self.value


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class CallLink(Protocol):
    """The connection that a call uses: a `ReplicaLink`, or a `Line`."""

    def send(self, frame: bytes) -> None:
        """Send a frame of the call."""

    def cancel(self, stream: int) -> None:
        """Tell the replica that nobody waits."""

    def forget(self, stream: int) -> None:
        """Undo the call; it was not sent."""


class HandleCall:
    """What unary and streaming calls share: sending, cancelling, and turning failures into errors."""

    __slots__ = (
        "_flags",
        "_link",
        "_stream",
        "has_begun",
        "is_over",
        "is_retryable",
        "meta",
        "outcome",
        "payload",
        "pool",
        "siblings",
        "ticket",
        "timer",
        "was_cancelled",
    )

    def __init__(self, meta: CallMeta, payload: Payload | None, flags: int = 0) -> None:
        #: None until the call is submitted.
        self.pool: Withdrawable | None = None
        self.meta = meta
        #: The open child calls of the request that made this call; it leaves the set at its end.
        self.siblings: set[Any] | None = None
        #: Kept until the replica answers: a reject sends it again elsewhere.
        self.payload = payload
        #: Done with the result; of a stream, done with None at its end.
        self.outcome = Outcome()
        self.is_over = False
        #: Where it stands in a fair queue; set before it is submitted.
        self.ticket = PLAIN
        #: Whether this caller asked for it, even if the result was faster.
        self.was_cancelled = False
        #: Whether the caller said that a call made twice does no more than one; set before it is submitted.
        self.is_retryable = False
        #: Ends the call when a time of its own is over; None when it has none, or only that of its caller's request.
        self.timer: asyncio.TimerHandle | None = None
        #: True once an item of a stream has arrived.
        self.has_begun = False
        self._flags = flags
        self._link: CallLink | None = None
        self._stream = 0

    @property
    def model_id(self) -> str:
        return self.meta.model_id

    @property
    def session_id(self) -> str:
        return self.meta.session_id

    def question(self) -> tuple[bool, bytes, bytes]:
        return False, _encode_meta(self.meta), self.payload.body if self.payload is not None else b""

    @property
    def due(self) -> float:
        """Loop time after which it must not be started any more."""
        return self.meta.deadline

    def start(self, link: CallLink, stream: int) -> None:
        payload = self.payload
        if payload is None:
            link.forget(stream)
            return
        self._link = link
        self._stream = stream
        head = _encode_meta(self.meta)
        link.send(encode(_CALL, stream, head, payload.body, flags=self._flags, value=stamp()))

    def limit_time(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the call when its deadline has passed; on the loop's thread."""
        if not self.is_over:
            self.timer = loop.call_at(self.meta.deadline, self.expire)

    def cancel(self) -> None:
        """Stop waiting and tell the replica; on the loop's thread."""
        self._give_up(RequestCancelledError(self.meta.request_id))

    def expire(self) -> None:
        """As `cancel`, because the call's time is over."""
        self._give_up(
            RequestTimeoutError(
                f"request {self.meta.request_id} (method {self.meta.method!r}) did not end within its time"
            )
        )

    def _give_up(self, error: ServeError) -> None:
        if self.is_over:
            return
        link = self._link
        if link is not None:
            link.cancel(self._stream)
        elif self.pool is not None:
            self.pool.withdraw(self)
        self._end(None, error)

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        raise NotImplementedError

    def on_moved(self, pool: Withdrawable) -> None:
        self.pool = pool
        self._link = None

    def on_lost(self, replica_id: str) -> None:
        self._end(
            None,
            ReplicaDiedError(
                f"replica {replica_id!r} died while it had this request (method {self.meta.method!r}, "
                f"request {self.meta.request_id}); the request may have had effects, so it is not sent again"
            ),
        )

    def on_refused(self, error: Exception) -> None:
        self._end(None, error)

    def evidence(self) -> Evidence | None:
        payload = self.payload
        if self.is_over or payload is None:
            return None
        is_retryable = self.is_retryable and not self.has_begun
        return Evidence(_kind(self.meta.method, payload), is_retryable=is_retryable, has_begun=self.has_begun)

    def _end(self, value: Any, error: BaseException | None) -> None:
        self.is_over = True
        self._link = None
        if self.timer is not None:
            self.timer.cancel()
        if self.payload is not None:
            self.payload.close()
            self.payload = None
        if self.siblings is not None:
            self.siblings.discard(self)
        self.outcome.set(value, error)

    def _load(self, flags: int, head: bytes, body: bytes) -> Any:
        if not head:
            return load(body)
        try:
            return load(body, _decode_payload_meta(head))
        finally:
            if flags & _EXTERNAL and self._link is not None:
                # Mapped, or of no use: the replica may give its segment back.
                self._link.send(encode(_CREDIT, self._stream, flags=_EXTERNAL))

    def _fail(self, status: int, body: bytes) -> None:
        self._end(None, _error(status, body, self.meta))


class UnaryCall(HandleCall):
    """One call, one answer."""

    __slots__ = ("line",)

    def __init__(self, meta: CallMeta, payload: Payload | None) -> None:
        super().__init__(meta, payload)
        #: The connection that the calling thread sent it over by itself; None when it goes through the loop.
        self.line: Line | None = None

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        if kind == _RESULT:
            try:
                value = self._load(flags, head, body)
            except SerializationError as error:
                self._end(None, error)
            else:
                self._end(value, None)
        elif kind != _CREDIT:
            self._fail(status, body)


class StreamCall(HandleCall):
    """One call, many items; the replica runs at most a window ahead of the reader."""

    __slots__ = ("_on_item", "_unacknowledged", "items")

    def __init__(self, meta: CallMeta, payload: Payload | None) -> None:
        super().__init__(meta, payload, _STREAM)
        #: Items that arrived and were not read: (item, cost in window bytes).
        self.items: deque[tuple[Any, int]] = deque()
        self._on_item: Callable[[], None] | None = None
        self._unacknowledged = 0

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        if kind == _DATA:
            if not flags & _MORE:
                self._end(None, None)
            else:
                try:
                    item = self._load(flags, head, body)
                except SerializationError as error:
                    link, stream = self._link, self._stream
                    if link is not None:
                        link.cancel(stream)
                    self._end(None, error)
                else:
                    self.has_begun = True
                    self.items.append((item, _size(head, body) + ITEM_COST_BYTES))
            self._notify()
        elif kind != _CREDIT:
            self._fail(status, body)
            self._notify()

    def _end(self, value: Any, error: BaseException | None) -> None:
        super()._end(value, error)
        self._notify()

    def on_next_item(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when there is an item or the end; on the loop's thread."""
        if self.items or self.is_over:
            callback()
        else:
            self._on_item = callback

    def _notify(self) -> None:
        callback, self._on_item = self._on_item, None
        if callback is not None:
            callback()

    def took(self, cost: int) -> None:
        """Say that the reader has an item; grants the replica more in lumps."""
        self._unacknowledged += cost
        if self._unacknowledged >= ITEM_WINDOW_BYTES // 2 and self._link is not None:
            self._link.send(encode(_CREDIT, self._stream, value=self._unacknowledged))
            self._unacknowledged = 0


def _kind(method: str, payload: Payload) -> bytes | None:
    meta = payload.meta
    if payload.segment is None or meta is None:
        return fingerprint(method.encode(), payload.body)
    try:
        # The receiver may be gone, but this process still holds the segment.
        return fingerprint(method.encode(), open_segment(meta.segment, meta.segment_id))
    except OSError:
        return None


def _size(head: bytes, body: bytes) -> int:
    """Bytes of an item, counted as its sender counts them."""
    return _decode_payload_meta(head).nbytes if head and not body else len(body)


def _error(status: int, body: bytes, meta: CallMeta) -> BaseException:
    if status == ErrorKind.TASK:
        return load_error(body)
    text = body.decode("utf-8", "replace")
    if status == ErrorKind.CANCELLED:
        return RequestCancelledError(meta.request_id)
    if status == ErrorKind.TIMEOUT:
        return RequestTimeoutError(text)
    if status == ErrorKind.UNAVAILABLE:
        return DeploymentUnavailableError(text)
    if status == ErrorKind.WRONG_CALL:
        return TypeError(text)
    if status == ErrorKind.BAD_REQUEST:
        return SerializationError(text)
    return ServeError(text)
