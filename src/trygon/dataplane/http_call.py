"""A request from outside on its way to a replica: the `Upstream` that a protocol holds."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import msgspec

from trygon.dataplane.fairness import PLAIN
from trygon.dataplane.frames import FrameFlag, FrameKind, encode
from trygon.dataplane.gateway import Failure, ResponseSink
from trygon.dataplane.links import Withdrawable
from trygon.dataplane.messages import ErrorKind, Evidence, HttpMeta
from trygon.dataplane.poison import fingerprint
from trygon.dataplane.pool import Pool
from trygon.dataplane.stamps import stamp
from trygon.errors import BackPressureError, PoisonRequestError

__all__ = ["PART_COST_BYTES", "STREAM_WINDOW_BYTES", "HttpCall", "retry_after"]

#: Bytes of one stream that may be under way before the receiver grants more.
STREAM_WINDOW_BYTES = 256 * 1024

#: What a client is told to wait when a queue is full and the deployment does not say.
RETRY_AFTER_S = 1.0

#: Counted for each body part or message beside its size, so that empty messages use up the window too.
PART_COST_BYTES = 256

_MORE = int(FrameFlag.MORE)
_CLOSE = int(FrameFlag.CLOSE)
_HTTP = int(FrameKind.HTTP)
_DATA = int(FrameKind.DATA)
_RESPONSE = int(FrameKind.RESPONSE)
_CREDIT = int(FrameKind.CREDIT)

_encode_meta = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(HttpMeta).decode

#: Methods that do no more when they are asked twice (RFC 9110, section 9.2.2); PUT and DELETE say so too, but what
#: user code does with them is rarely meant to.
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS"))
_IDEMPOTENCY_KEY = b"idempotency-key"


class _HttpLink(Protocol):
    """The connection that a request uses: a `ReplicaLink`, or what stands before it."""

    is_paused: bool

    def send(self, frame: bytes) -> None:
        """Send a frame of the request."""

    def cancel(self, stream: int) -> None:
        """Tell the replica that nobody waits."""


class HttpCall:
    """Implements `links.Call` towards the replica and `gateway.Upstream` towards the protocol."""

    __slots__ = (
        "_body",
        "_granted",
        "_has_begun",
        "_head",
        "_is_closing",
        "_is_taken",
        "_link",
        "_more",
        "_pool",
        "_sink",
        "_stream",
        "_unsent",
        "_window",
        "due",
        "model_id",
        "ticket",
    )

    def __init__(self, pool: Pool, meta: HttpMeta, body: bytes, more: bool, sink: ResponseSink) -> None:
        self._pool: Withdrawable = pool
        self.ticket = PLAIN
        #: Loop time after which it must not be started any more; 0 is never.
        self.due = 0.0
        self._head = _encode_meta(meta)
        self.model_id = meta.model_id
        self._body = body
        self._more = more
        #: None once the call is over.
        self._sink: ResponseSink | None = sink
        self._link: _HttpLink | None = None
        self._stream = 0
        #: Bytes the replica will still take; it grants the first window when it accepts the request.
        self._window = 0
        #: Body parts that wait for the window: (data, flags).
        self._unsent: deque[tuple[bytes, int]] = deque()
        #: True once the replica has taken the request and granted a first window.
        self._is_taken = False
        #: True once a websocket's close is among the unsent parts.
        self._is_closing = False
        #: Response bytes handed on and not yet granted to the replica.
        self._granted = 0
        #: True once a part of the answer was handed on and more is to come.
        self._has_begun = False

    # ---- Upstream

    def send(self, data: bytes, flags: int) -> bool:
        link = self._link
        if self._window > 0 and link is not None and not self._unsent and not link.is_paused:
            self._window -= len(data) + PART_COST_BYTES
            link.send(encode(_DATA, self._stream, b"", data, flags=flags))
            return self._window > 0
        self._unsent.append((data, flags))
        if flags & _CLOSE:
            # What is before it is bounded, and a handler that never reads must still hear of the close.
            self._is_closing = True
            if self._is_taken and self._sink is not None:
                self._send_waiting(self._sink)
        return False

    def grant(self, size: int) -> None:
        self._granted += size
        if self._granted >= STREAM_WINDOW_BYTES // 2 and self._link is not None:
            self._link.send(encode(_CREDIT, self._stream, value=self._granted))
            self._granted = 0

    def cancel(self) -> None:
        self._sink = None
        self._unsent.clear()
        if self._link is not None:
            self._link.cancel(self._stream)
            self._link = None
        else:
            self._pool.withdraw(self)

    # ---- links.Call

    @property
    def session_id(self) -> str:
        session_id: str = _decode_meta(self._head).session_id
        return session_id

    def question(self) -> tuple[bool, bytes, bytes]:
        return True, self._head, self._body

    def start(self, link: _HttpLink, stream: int) -> None:
        self._link = link
        self._stream = stream
        flags = _MORE if self._more else 0
        link.send(encode(_HTTP, stream, self._head, self._body, flags=flags, value=stamp()))

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        sink = self._sink
        if sink is None:
            return
        if kind == _RESPONSE:
            if flags & _MORE:
                self._has_begun = True
            else:
                self._finish()
            sink.on_response(status, flags, head, body)
        elif kind == _DATA:
            if not flags & _MORE:
                self._finish()
            sink.on_data(body, flags)
        elif kind == _CREDIT:
            self._window += status
            self._is_taken = True
            self._send_waiting(sink)
        else:
            self._finish()
            sink.on_failure(_failure(status, body))

    def on_moved(self, pool: Withdrawable) -> None:
        self._pool = pool
        self._link = None

    def on_lost(self, replica_id: str) -> None:
        sink = self._sink
        self._finish()
        if sink is not None:
            sink.on_failure(
                Failure(
                    502, f"the replica that had this request died (replica {replica_id.rsplit('#', 1)[-1]})"
                )
            )

    def on_refused(self, error: Exception) -> None:
        sink = self._sink
        self._finish()
        if sink is not None:
            if isinstance(error, BackPressureError):
                sink.on_failure(Failure(error.status_code, error.message, retry_after(error)))
            elif isinstance(error, TimeoutError):
                sink.on_failure(Failure(408, str(error)))
            elif isinstance(error, PoisonRequestError):
                sink.on_failure(Failure(503, str(error), error.retry_after_s))
            else:
                sink.on_failure(Failure(503, str(error)))

    def evidence(self) -> Evidence | None:
        if self._sink is None:
            return None
        meta = _decode_meta(self._head)
        if meta.is_websocket:
            # What its messages are is not kept, so that one bad message must not close the path to all others.
            return Evidence(None, is_retryable=False, has_begun=True)
        kind = fingerprint(meta.method.encode(), meta.path.encode(), meta.query, self._body)
        is_idempotent = meta.method in _IDEMPOTENT or any(
            name == _IDEMPOTENCY_KEY and value.strip() for name, value in meta.headers
        )
        is_retryable = is_idempotent and not self._more and not self._has_begun
        return Evidence(kind, is_retryable=is_retryable, has_begun=self._has_begun)

    # ----

    def _finish(self) -> None:
        self._sink = None
        self._link = None
        self._unsent.clear()

    def _send_waiting(self, sink: ResponseSink) -> None:
        link = self._link
        if link is None:
            return
        unsent = self._unsent
        while unsent and (self._is_closing or (self._window > 0 and not link.is_paused)):
            data, flags = unsent.popleft()
            self._window -= len(data) + PART_COST_BYTES
            link.send(encode(_DATA, self._stream, b"", data, flags=flags))
        if not unsent and self._window > 0 and not link.is_paused:
            sink.on_writable()


def retry_after(error: BackPressureError) -> float:
    """Return the seconds for Retry-After; a full queue always names some."""
    return RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s


def _failure(kind: int, payload: bytes) -> Failure:
    text = payload.decode("utf-8", "replace")
    if kind == ErrorKind.CANCELLED:
        return Failure(499, text or "request was cancelled")
    if kind == ErrorKind.TIMEOUT:
        return Failure(408, text)
    if kind == ErrorKind.UNAVAILABLE:
        return Failure(503, text)
    return Failure(500, "Internal Server Error")
