"""One request inside a replica: what arrived of it, what was answered, and its flow control."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import msgspec

from trygon.dataplane.frames import FrameFlag, FrameKind, encode
from trygon.dataplane.handle_calls import ITEM_COST_BYTES, ITEM_WINDOW_BYTES
from trygon.dataplane.http_call import PART_COST_BYTES, STREAM_WINDOW_BYTES
from trygon.dataplane.messages import ErrorKind
from trygon.dataplane.payloads import Payload, PayloadMeta
from trygon.dataplane.segments import Segment

__all__ = ["Bell", "CallExchange", "Carrier", "Exchange", "HttpExchange"]

_MORE = int(FrameFlag.MORE)
_CLOSE = int(FrameFlag.CLOSE)
_LENGTH = int(FrameFlag.LENGTH)
_FREED = int(FrameFlag.FREED)
_EXTERNAL = int(FrameFlag.EXTERNAL)
_RESPONSE = int(FrameKind.RESPONSE)
_RESULT = int(FrameKind.RESULT)
_ERROR = int(FrameKind.ERROR)
_DATA = int(FrameKind.DATA)
_CREDIT = int(FrameKind.CREDIT)

#: A complete answer larger than this leaves in pieces, as the caller takes them.
_PIECE_BYTES = STREAM_WINDOW_BYTES

_encode_payload_meta = msgspec.msgpack.Encoder().encode


class Carrier(Protocol):
    """The connection that an exchange belongs to."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport | None
    is_paused: bool
    exchanges: dict[int, Exchange]

    @property
    def load(self) -> int:
        """Requests in work, of all callers."""

    def send(self, frame: bytes) -> None:
        """Queue a frame."""

    def hold(self, stream: int, segment: Segment) -> None:
        """Keep a segment until the caller has mapped it or is gone."""


class Bell:
    """Wakes every task that waits; several may (two senders on one websocket)."""

    __slots__ = ("_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next ring."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def ring(self) -> None:
        """Wake who waits now."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


class Exchange:
    """A stream of a replica's connection, from its first frame to its last."""

    __slots__ = ("_gone", "_room", "connection", "is_closed", "is_ended", "stream", "task", "window")

    def __init__(self, connection: Carrier, stream: int, window: int) -> None:
        self.connection = connection
        self.stream = stream
        #: Runs the user's code; None before it starts.
        self.task: asyncio.Task[None] | None = None
        #: Bytes that may be sent before the caller grants more; goes below 0 by one piece.
        self.window = window
        #: True once the last frame was sent, or the caller cancelled or went away.
        self.is_ended = False
        #: Rings when a sender may look at the window again; made by the first that waits.
        self._room: Bell | None = None
        #: True when the caller is gone or has cancelled.
        self._gone = False
        #: True when the client closed its websocket; the close itself is in the inbox, after what came before.
        self.is_closed = False

    # ---- what the connection says

    def on_data(self, data: bytes, flags: int) -> None:
        """Take more of the request."""

    def on_credit(self, size: int) -> None:
        """The caller takes `size` bytes more."""
        self.window += size
        self.wake()

    def wake(self) -> None:
        """Let a waiting sender look again."""
        if self.window > 0 and not self.connection.is_paused and self._room is not None:
            self._room.ring()

    @property
    def is_gone(self) -> bool:
        """Whether the caller has cancelled or is gone."""
        return self._gone

    def mark_gone(self) -> None:
        """Remember that nobody waits for the answer; a sender wakes."""
        self._gone = True
        self.release()

    def release(self) -> None:
        """Let a waiting sender go on although there is no room: the caller is gone."""
        if self._room is not None:
            self._room.ring()

    def on_cancel(self) -> None:
        """The caller does not wait any more (it cancelled, or is gone)."""
        if not self.is_ended and self.task is not None:
            # Not at once: a task cancelled before its first step never runs, so it would neither answer
            # nor give its slot back. That step was scheduled before this call.
            self.connection.loop.call_soon(self.task.cancel)

    # ---- sending

    async def wait_room(self) -> None:
        """Wait until the caller takes more."""
        connection = self.connection
        while (
            (self.window <= 0 or connection.is_paused)
            and connection.transport is not None
            and not self._gone
            and not self.is_closed
        ):
            if self._room is None:
                self._room = Bell(connection.loop)
            await self._room.wait()

    def _last(self, frame: bytes) -> None:
        """Send the frame that ends the stream."""
        self.is_ended = True
        self.connection.exchanges.pop(self.stream, None)
        self.connection.send(frame)

    def fail(self, kind: int, payload: bytes) -> None:
        """End the stream with an ERROR frame."""
        if not self.is_ended:
            self._last(encode(_ERROR, self.stream, b"", payload, status=kind, value=self.connection.load))


class CallExchange(Exchange):
    """A handle call."""

    __slots__ = ("flags",)

    def __init__(self, connection: Carrier, stream: int, flags: int) -> None:
        super().__init__(connection, stream, ITEM_WINDOW_BYTES)
        self.flags = flags

    def result(self, payload: Payload) -> None:
        """Answer a unary call."""
        if self.is_ended:
            payload.close()
            return
        flags, head = self._layout(payload)
        self._last(encode(_RESULT, self.stream, head, payload.body, flags=flags, value=self.connection.load))

    async def item(self, payload: Payload) -> None:
        """Send one item of a stream, when the reader has room."""
        if self.window <= 0 or self.connection.is_paused:
            await self.wait_room()
        if self.is_ended or self._gone:
            payload.close()
            # Said here too: a generator that never waits would run to its end before its task is cancelled.
            raise asyncio.CancelledError
        flags, head = self._layout(payload)
        self.window -= payload.nbytes + ITEM_COST_BYTES
        self.connection.send(encode(_DATA, self.stream, head, payload.body, flags=flags | _MORE))

    def wrong_call(self, text: str) -> None:
        """Say that a generator was called without stream=True, or the other way round."""
        self.fail(ErrorKind.WRONG_CALL, text.encode())

    def end(self) -> None:
        """End a stream."""
        if not self.is_ended:
            self._last(encode(_DATA, self.stream, value=self.connection.load))

    def _layout(self, payload: Payload) -> tuple[int, bytes]:
        meta: PayloadMeta | None = payload.meta
        if meta is None:
            return 0, b""
        if payload.segment is not None:
            self.connection.hold(self.stream, payload.segment)
            return _EXTERNAL, _encode_payload_meta(meta)
        return 0, _encode_payload_meta(meta)


class HttpExchange(Exchange):
    """A request from outside, or a websocket."""

    __slots__ = ("_arrival", "_pieces", "_taken", "body", "has_started", "inbox", "is_websocket", "more")

    def __init__(self, connection: Carrier, stream: int, body: bytes, *, more: bool) -> None:
        super().__init__(connection, stream, STREAM_WINDOW_BYTES)
        #: The body when it came with the request; parts that came later are in `inbox`.
        self.body = body
        self.is_websocket = False
        #: True until the last part of the body arrived.
        self.more = more
        #: Body parts or websocket messages that user code has not taken: (data, flags).
        self.inbox: deque[tuple[bytes, int]] = deque()
        self.has_started = False
        #: Rings when something arrived, or nothing more will; made by the first that waits.
        self._arrival: Bell | None = None
        #: Window bytes that user code has taken and the caller was not told of.
        self._taken = 0
        #: What is left of a complete answer that is larger than the window.
        self._pieces: memoryview | None = None

    # ---- the request

    def on_data(self, data: bytes, flags: int) -> None:
        self.inbox.append((data, flags))
        if not flags & _MORE:
            self.more = False
        if flags & _CLOSE:
            self.is_closed = True
            self.release()
        if self._arrival is not None:
            self._arrival.ring()

    async def wait_inbox(self) -> bool:
        """Wait for a part or message; False when there will be none."""
        while not self.inbox:
            if self._gone or not self.more:
                return False
            await self._wait_arrival()
        return True

    async def wait_gone(self) -> None:
        """Wait until nobody waits for the answer any more, or it was sent."""
        while not self._gone and not self.is_ended:
            await self._wait_arrival()

    async def _wait_arrival(self) -> None:
        if self._arrival is None:
            self._arrival = Bell(self.connection.loop)
        await self._arrival.wait()

    def take(self) -> tuple[bytes, int]:
        """Return the next part or message and let the caller send as much more."""
        data, flags = self.inbox.popleft()
        self._taken += len(data) + PART_COST_BYTES
        if self.more and self._taken >= STREAM_WINDOW_BYTES // 4:
            self.connection.send(encode(_CREDIT, self.stream, value=self._taken))
            self._taken = 0
        return data, flags

    def accept_body(self) -> None:
        """Let the caller send the rest of the body, a window at a time."""
        self.connection.send(encode(_CREDIT, self.stream, value=STREAM_WINDOW_BYTES))

    @property
    def is_left_open(self) -> bool:
        """Whether user code has returned although the answer goes on (nothing will end it)."""
        return not self.is_ended and self._pieces is None

    def mark_gone(self) -> None:
        super().mark_gone()
        if self._arrival is not None:
            self._arrival.ring()

    def _last(self, frame: bytes) -> None:
        super()._last(frame)
        # Whoever waits for the client's disconnect hears of the end.
        if self._arrival is not None:
            self._arrival.ring()

    # ---- the answer

    def respond(self, status: int, head: bytes, body: bytes, *, has_length: bool = False) -> None:
        """Send a complete answer; one larger than the window leaves as the caller takes it."""
        if self.is_ended:
            return
        self.has_started = True
        connection = self.connection
        flags = _LENGTH if has_length else 0
        load = connection.load
        if len(body) <= _PIECE_BYTES:
            self._last(encode(_RESPONSE, self.stream, head, body, flags=flags, status=status, value=load))
            return
        if not has_length:
            head += b"content-length: %d\r\n" % len(body)
        whole = memoryview(body)
        connection.send(
            encode(
                _RESPONSE,
                self.stream,
                head,
                bytes(whole[:_PIECE_BYTES]),
                flags=flags | _LENGTH | _MORE | _FREED,
                status=status,
                value=load,
            )
        )
        self.window -= _PIECE_BYTES
        self._pieces = whole[_PIECE_BYTES:]
        self._send_pieces()

    def on_cancel(self) -> None:
        if self._pieces is not None:
            self._pieces = None
            self.fail(ErrorKind.CANCELLED, b"")
        else:
            super().on_cancel()

    def wake(self) -> None:
        if self._pieces is not None:
            self._send_pieces()
        else:
            super().wake()

    def _send_pieces(self) -> None:
        pieces = self._pieces
        while pieces is not None and self.window > 0 and not self.connection.is_paused:
            piece, pieces = bytes(pieces[:_PIECE_BYTES]), pieces[_PIECE_BYTES:]
            self.window -= len(piece)
            if pieces:
                self.connection.send(encode(_DATA, self.stream, b"", piece, flags=_MORE))
            else:
                pieces = None
                self._last(encode(_DATA, self.stream, b"", piece))
        self._pieces = pieces

    def start(self, status: int, head: bytes, body: bytes, flags: int) -> None:
        """Send the head and the first part of an answer that goes on."""
        if self.is_ended:
            return
        self.has_started = True
        self.window -= len(body)
        self.connection.send(
            encode(
                _RESPONSE,
                self.stream,
                head,
                body,
                flags=flags | _MORE,
                status=status,
                value=self.connection.load,
            )
        )

    def send_part(self, data: bytes, flags: int) -> None:
        """Send more of an answer or a websocket message; without MORE it is the last."""
        if self.is_ended:
            return
        frame = encode(_DATA, self.stream, b"", data, flags=flags, value=self.connection.load)
        if flags & _MORE:
            self.window -= len(data)
            self.connection.send(frame)
        else:
            self._last(frame)
