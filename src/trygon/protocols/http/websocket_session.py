"""One websocket: the sink of a handshake's answer and, once accepted, the protocol of its connection.

Until an application accepts, the `HttpConnection` keeps the transport and writes a refusal as any answer.
Pings, pongs, the close handshake and the limits are kept here; applications see messages and one close.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from trygon.dataplane.frames import FrameFlag
from trygon.dataplane.gateway import Failure, ResponseSink, Upstream
from trygon.protocols.http import responses
from trygon.protocols.http.front import Front
from trygon.protocols.http.websocket import (
    CloseCode,
    Event,
    EventKind,
    MessageReader,
    Opcode,
    accept_key,
    close_frame,
    encode_frame,
    frame_header,
)

__all__ = ["Handshake", "WebSocketSession"]

_MORE: Final = int(FrameFlag.MORE)
_TEXT: Final = int(FrameFlag.TEXT)
_CLOSE: Final = int(FrameFlag.CLOSE)
_UPGRADE: Final = int(FrameFlag.UPGRADE)
#: Opcodes and kinds of events, as plain globals for speed.
_TEXT_MESSAGE: Final = int(Opcode.TEXT)
_BINARY_MESSAGE: Final = int(Opcode.BINARY)
_FOREVER: Final = float("inf")
_JOIN_BYTES: Final = 16384
_LINGER_S: Final = 2.0
_UPGRADE_LINES: Final = b"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: "


class Handshake(ResponseSink, Protocol):
    """The connection that a handshake came on."""

    def begin_websocket(self, session: WebSocketSession) -> tuple[bytes, Upstream | None, bytes, str] | None:
        """Give the transport up to `session`.

        Returns:
            Bytes that came after the handshake, the upstream, the client's key, the request id;
            None when the request is over.
        """


class WebSocketSession(asyncio.Protocol):
    """A websocket between a client and an application.

    The application hears exactly one CLOSE, whoever closes first, unless it closed itself.
    """

    __slots__ = (
        "_front",
        "_handshake",
        "_is_close_sent",
        "_is_lost",
        "_is_upstream_closed",
        "_pinged",
        "_pong",
        "_read_paused",
        "_reader",
        "_transport",
        "_ungranted",
        "_upstream",
        "_write_mark",
        "_write_paused",
        "_written_paused",
        "deadline",
    )

    def __init__(self, connection: Handshake, front: Front, transport: asyncio.Transport) -> None:
        #: Keeps the transport until an application accepts; None from then on.
        self._handshake: Handshake | None = connection
        self._front = front
        self._transport = transport
        self._reader = MessageReader(front.settings.max_message_bytes)
        self._upstream: Upstream | None = None
        self._is_close_sent = False
        #: The application has closed, has been told of a close, or is gone.
        self._is_upstream_closed = False
        self._is_lost = False
        self._read_paused = False
        self._write_paused = False
        self._write_mark = 0
        self._written_paused = 0
        self._ungranted = 0
        #: A pong that waits for the client to read; only the latest ping needs an answer (RFC 6455, 5.5.3).
        self._pong: bytes | None = None
        #: A ping is out and nothing has come since.
        self._pinged = False
        self.deadline = _FOREVER

    @property
    def is_accepted(self) -> bool:
        """Whether the connection speaks websocket by now."""
        return self._handshake is None

    def attach(self, upstream: Upstream) -> None:
        """Take the upstream, when the application accepted before `Gateway.open` returned."""
        if self._is_upstream_closed:
            return
        self._upstream = upstream
        if self._ungranted and not self._write_paused:
            self._grant(0)
        if self._reader.has_more:
            self._receive(b"")

    # ---- the application's side

    def on_response(self, status: int, flags: int, head: bytes, body: bytes) -> None:
        handshake = self._handshake
        if handshake is None:
            return
        if not flags & _UPGRADE:
            handshake.on_response(status, flags, head, body)
            return
        accepted = handshake.begin_websocket(self)
        if accepted is None:
            return
        rest, upstream, key, request_id = accepted
        self._handshake = None
        self._upstream = upstream
        front = self._front
        self._transport.set_protocol(self)
        self._transport.write(
            b"".join(
                (
                    front.prefixes[101],
                    request_id.encode(),
                    b"\r\n",
                    _UPGRADE_LINES,
                    accept_key(key),
                    b"\r\n",
                    responses.without_length(head),
                    b"\r\n",
                )
            )
        )
        self._wait(front.settings.ping_interval_s)
        if rest:
            self._reader.hold(rest)
            if upstream is not None:
                self._receive(b"")

    def on_data(self, data: bytes, flags: int) -> None:
        if self._handshake is not None:
            self._handshake.on_data(data, flags)
            return
        if flags & _CLOSE or not flags & _MORE:
            self._application_ended()
            code = int.from_bytes(data[:2], "big") if flags & _CLOSE and len(data) >= 2 else CloseCode.NORMAL
            self._send_close(code, data[2:] if flags & _CLOSE else b"")
            return
        size = len(data)
        if self._is_close_sent or self._is_lost:
            # Nobody hears it any more, but the application must not wait for room.
            self._grant(size)
            return
        opcode = _TEXT_MESSAGE if flags & _TEXT else _BINARY_MESSAGE
        if size < _JOIN_BYTES:
            self._transport.write(encode_frame(opcode, data))
        else:
            self._transport.writelines((frame_header(opcode, size), data))
        if self._write_paused:
            self._ungranted += size
            self._written_paused += size
        else:
            self._grant(size)

    def on_failure(self, failure: Failure) -> None:
        if self._handshake is not None:
            self._handshake.on_failure(failure)
            return
        self._application_ended()
        self._send_close(CloseCode.INTERNAL_ERROR, failure.reason.encode("utf-8", "replace"))

    def on_writable(self) -> None:
        if self._handshake is not None:
            return
        self._resume_reading()
        if self._reader.has_more:
            self._receive(b"")

    def _grant(self, size: int) -> None:
        size += self._ungranted
        if self._upstream is None:
            self._ungranted = size
        else:
            self._ungranted = 0
            self._upstream.grant(size)

    def _application_ended(self) -> None:
        self._is_upstream_closed = True
        # The upstream holds its sink: let go, so that neither waits for the garbage collector.
        self._upstream = None

    def _tell_application(self, code: int, reason: bytes = b"") -> None:
        """Send the one CLOSE upstream."""
        if not self._is_upstream_closed and self._upstream is not None:
            self._is_upstream_closed = True
            self._upstream.send(code.to_bytes(2, "big") + reason, _CLOSE)

    # ---- the client's side

    def data_received(self, data: bytes) -> None:
        self._pinged = False
        if self._reader.is_ended:
            return
        if self._read_paused:
            self._reader.hold(data)
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        reader = self._reader
        for event in reader.receive(data):
            self._take(event)
        if reader.has_more and not self._read_paused:
            self._pause_reading()
            self._front.loop.call_soon(self.on_writable)

    def _take(self, event: Event) -> None:
        kind = event.kind
        if kind <= _BINARY_MESSAGE:
            if self._is_upstream_closed or self._upstream is None:
                return
            if not self._upstream.send(event.data, _MORE | _TEXT if kind == _TEXT_MESSAGE else _MORE):
                self._pause_reading()
        elif kind == EventKind.PING:
            if self._is_close_sent:
                return
            if self._write_paused:
                self._pong = event.data
            else:
                self._transport.write(encode_frame(Opcode.PONG, event.data))
        elif kind == EventKind.CLOSE:
            # The client first: the application's own end must not become another close.
            if not self._is_close_sent:
                self._is_close_sent = True
                self._transport.write(close_frame(event.code, event.data))
            self._tell_application(event.code, event.data)
            self._close_transport()
        elif kind == EventKind.FAILED:
            self._send_close(event.code, event.data)
            self._tell_application(event.code, event.data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self.deadline = _FOREVER
        self._tell_application(CloseCode.ABNORMAL)
        if self._ungranted:
            self._grant(0)
        self._front.session_closed(self)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._write_mark = self._transport.get_write_buffer_size()
        self._written_paused = 0
        self._wait(self._front.settings.write_timeout_s)

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._pong is not None:
            self._transport.write(encode_frame(Opcode.PONG, self._pong))
            self._pong = None
        if self._ungranted:
            self._grant(0)

    # ---- waiting and ending

    def on_deadline(self, now: float) -> None:
        """Ping, or cut a connection that is dead, stuck or does not close; called by the server's sweep."""
        if now < self.deadline:
            if self.deadline < _FOREVER:
                self._front.wheel.add(self, self.deadline)
            return
        self.deadline = _FOREVER
        settings = self._front.settings
        if self._write_paused:
            size = self._transport.get_write_buffer_size()
            if size >= self._write_mark + self._written_paused:
                self._transport.abort()
                return
            self._write_mark = size
            self._written_paused = 0
            self._wait(settings.write_timeout_s)
        elif self._is_close_sent:
            self._transport.abort()
        elif self._pinged and not self._read_paused:
            self._tell_application(CloseCode.ABNORMAL)
            self._transport.abort()
        else:
            self._pinged = True
            self._transport.write(encode_frame(Opcode.PING, b""))
            self._wait(settings.ping_timeout_s)

    def drain(self) -> None:
        """Close both sides: the server goes away."""
        self._send_close(CloseCode.SERVICE_RESTART, b"")
        self._tell_application(CloseCode.SERVICE_RESTART)

    def abort(self) -> None:
        """End the connection without waiting for anything."""
        self._transport.abort()

    def _send_close(self, code: int, reason: bytes) -> None:
        """Start the close handshake; the client's close frame, or the deadline, ends it."""
        if self._is_close_sent or self._is_lost:
            return
        self._is_close_sent = True
        self._transport.write(close_frame(code, reason))
        self._resume_reading()
        if self._reader.is_ended:
            # The client broke the protocol: expect no close frame, but let it see ours before the end.
            self._transport.write_eof()
            self._wait(_LINGER_S)
        else:
            self._wait(self._front.settings.close_timeout_s)

    def _close_transport(self) -> None:
        self._transport.close()
        self._wait(self._front.settings.close_timeout_s)

    def _wait(self, span_s: float) -> None:
        self.deadline = self._front.monotonic() + span_s
        self._front.wheel.add(self, self.deadline)

    def _pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
