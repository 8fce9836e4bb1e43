"""The life of a client connection apart from its requests: fields, deadlines, pausing, and the ways to end."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Final, cast

from trygon.dataplane.gateway import RouteMatch, Upstream
from trygon.protocols.http.errors import ProtocolError
from trygon.protocols.http.front import Front
from trygon.protocols.http.head import RequestHead
from trygon.protocols.http.parser import RequestParser

__all__ = ["ACTIVE", "BODY", "CLOSED", "CLOSING", "FOREVER", "IDLE", "ConnectionLifetime", "Phase"]

FOREVER: Final = float("inf")
#: After a final answer the client may go on sending for so long and so much, so that it sees the answer
#: instead of a reset.
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 16 * 1024 * 1024


class Phase(IntEnum):
    """What a connection waits for."""

    IDLE = 0  #: (the rest of) a head
    BODY = 1  #: the rest of a small body
    ACTIVE = 2  #: an application, or the rest of a large body
    CLOSING = 3  #: the client, to take the last answer
    CLOSED = 4


#: The members as globals: reading one from its class costs 0.1 us in Python 3.11, ten times a request.
IDLE: Final = Phase.IDLE
BODY: Final = Phase.BODY
ACTIVE: Final = Phase.ACTIVE
CLOSING: Final = Phase.CLOSING
CLOSED: Final = Phase.CLOSED


class ConnectionLifetime(asyncio.Protocol):
    """What `AnsweringConnection` and `HttpConnection` build on."""

    # In groups: how long a field lives matters more than its first letter.
    __slots__ = (  # noqa: RUF023
        # per connection
        "_advancing",
        "_client",
        "_lingered",
        "_parser",
        "_read_paused",
        "_received",
        "_front",
        "_server_address",
        "_transport",
        "_visit",
        "_write_due",
        "_write_mark",
        "_write_paused",
        "_written_paused",
        "deadline",
        "phase",
        # per request
        "_accepted",
        "_begun",
        "_body",
        "_body_due",
        "_body_mark",
        "_body_open",
        "_body_size",
        "_chunked",
        "_close_after",
        "_discard",
        "_due",
        "_head",
        "_is_cancelled",
        "_left",
        "_request_id",
        "_route",
        "_send_blocked",
        "_serial",
        "_started",
        "_status",
        "_timeout_s",
        "_ungranted",
        "_upstream",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self._parser = RequestParser(front.rules, front.settings)
        self._transport = cast("asyncio.Transport", None)
        self._client: tuple[str, int] | None = None
        self._server_address: tuple[str, int] | None = None
        self.phase: Phase = IDLE
        #: Monotonic time at which `on_deadline` has something to do.
        self.deadline = FOREVER
        #: When the sweep comes by next; a deadline before it must be told to the wheel.
        self._visit = FOREVER
        #: Requests are being taken: an answer given at once must not start another round.
        self._advancing = False
        self._read_paused = False
        self._write_paused = False
        #: While writing is paused: size of the write buffer at the last look, bytes written since, the next look.
        self._write_mark = 0
        self._written_paused = 0
        self._write_due = 0.0
        self._lingered = 0

        #: None between requests.
        self._head: RequestHead | None = None
        self._route: RouteMatch | None = None
        self._request_id = ""
        self._started = 0.0
        #: When its first bytes were here (metrics only), and when it went to its application.
        self._received = self._accepted = 0.0
        self._status = 0
        #: Counts requests, so that an answer given inside `Gateway.open` is noticed.
        self._serial = 0
        self._upstream: Upstream | None = None
        #: The current request was cancelled, perhaps before `Gateway.open` returned.
        self._is_cancelled = False
        #: The request body is not complete yet.
        self._body_open = False
        #: A small body being collected.
        self._body: bytearray | None = None
        self._body_size = 0
        #: Size at the last look, and when the next one is due.
        self._body_mark = 0
        self._body_due = 0.0
        #: The upstream takes no more body for now.
        self._send_blocked = False
        #: The answer's head has been written.
        self._begun = False
        self._chunked = False
        #: Bytes the answer's content-length still promises; -1 is no promise.
        self._left = -1
        #: The answer has no body to be written (HEAD, 204, 304).
        self._discard = False
        self._close_after = False
        #: Bytes of the answer not granted to the upstream because the client does not read.
        self._ungranted = 0
        self._timeout_s = 0.0
        self._due = FOREVER

    # ---- given by the classes above

    def _refuse(self, error: ProtocolError, *, lingers: bool = True) -> None:
        raise NotImplementedError

    def _advance(self) -> None:
        raise NotImplementedError

    def _rest(self) -> None:
        raise NotImplementedError

    def on_timeout(self, now: float) -> None:
        raise NotImplementedError

    def opened(self) -> None:
        raise NotImplementedError

    # ---- deadlines

    def on_deadline(self, now: float) -> None:
        """Act on the deadline of the phase, if it has passed; called by the server's sweep."""
        self._visit = FOREVER
        if now < self.deadline:
            if self.deadline < FOREVER:
                self._visit = self.deadline
                self._front.wheel.add(self, self.deadline)
            return
        self.deadline = FOREVER
        phase = self.phase
        if phase is CLOSING:
            if not self._transport.get_write_buffer_size() or self._is_write_stuck(now):
                self._transport.abort()
        elif self._write_paused:
            if self._is_write_stuck(now):
                self._transport.abort()
                return
        elif phase is IDLE:
            self._expire()
        if self._body_open:
            self._check_body_progress(now)

    def _is_write_stuck(self, now: float) -> bool:
        """Tell whether the client took nothing for as long as it may; if not, look again later."""
        is_stuck = False
        if now >= self._write_due:
            size = self._transport.get_write_buffer_size()
            is_stuck = size >= self._write_mark + self._written_paused
            self._mark_writing(now)
        self._wait_until(self._write_due)
        return is_stuck

    def _mark_writing(self, now: float) -> None:
        self._write_mark = self._transport.get_write_buffer_size()
        self._written_paused = 0
        self._write_due = now + self._front.settings.write_timeout_s

    def _check_body_progress(self, now: float) -> None:
        settings = self._front.settings
        if now >= self._body_due:
            # While the application takes nothing, the client cannot send.
            if not self._read_paused and self._body_size - self._body_mark < settings.min_body_bytes:
                self._refuse(ProtocolError(408, "request body arrives too slowly"))
                return
            self._mark_body(now)
        self._wait_until(self._body_due)

    def _mark_body(self, now: float) -> None:
        self._body_mark = self._body_size
        self._body_due = now + self._front.settings.body_timeout_s

    def _expire(self) -> None:
        """No (complete) head came in time."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        elif self._parser.buffered:
            self._refuse(ProtocolError(408, "request head not complete in time"))
        else:
            self.close()

    def _wait_until(self, deadline: float) -> None:
        """Be visited at `deadline`, or before it if something else is waited for as well."""
        if deadline < self.deadline:
            self.deadline = deadline
            if deadline < self._visit:
                self._visit = deadline
                self._front.wheel.add(self, deadline)

    # ---- pausing

    def pause_writing(self) -> None:
        self._write_paused = True
        self._mark_writing(self._front.monotonic())
        self._wait_until(self._write_due)

    def resume_writing(self) -> None:
        self._write_paused = False
        # Not from here: asyncio's own transport breaks when it is closed while it resumes.
        self._front.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """The client reads again."""
        if self._write_paused:
            return
        if self.phase is ACTIVE:
            ungranted = self._ungranted
            if ungranted and self._upstream is not None:
                self._ungranted = 0
                self._upstream.grant(ungranted)
        elif self.phase is IDLE:
            self._advance()

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # ---- ending

    def shed(self) -> None:
        """Make room: end a connection that has no complete request in work."""
        if self.phase is IDLE:
            self.close()
        elif self.phase is BODY:
            self._refuse(
                ProtocolError(503, "too many requests at once", b"retry-after: 1\r\n"), lingers=False
            )
        else:
            self._transport.abort()

    def refuse_newcomer(self) -> None:
        """Answer 503 at once: every connection is at work."""
        self._refuse(ProtocolError(503, "too many connections", b"retry-after: 1\r\n"))

    def drain(self) -> None:
        """Take no more requests: end now, or after the request in work."""
        if self.phase is not IDLE:
            if not self._begun:
                self._close_after = True
        elif self._serial and not self._parser.buffered:
            self.close()
        else:
            # A request may be on its way: a new connection is not made for nothing.
            self._wait_until(self._front.monotonic() + 1.0)

    def abort(self) -> None:
        """End the connection without waiting for anything."""
        self._transport.abort()

    def close(self) -> None:
        """End the connection once what was written has left."""
        self._end()
        self._transport.close()
        self._wait_until(self._write_due)

    def _linger(self) -> None:
        """End the connection, but let the client see the answer although it may still be sending.

        Closing a socket with unread bytes resets it, and a reset destroys what the client has not read.
        """
        transport = self._transport
        if transport.is_closing():
            self.close()
            return
        self._end()
        if transport.can_write_eof():
            # TLS cannot; there the client knows the answer's end by its length.
            transport.write_eof()
        self._resume_reading()
        self._wait_until(self._front.monotonic() + _LINGER_S)

    def _take_lingering(self, data: bytes) -> None:
        """Drop what a client sends after its last answer."""
        self._lingered += len(data)
        if self._lingered > _LINGER_BYTES:
            self._transport.abort()

    def _end(self) -> None:
        front = self._front
        self.phase = CLOSING
        self._body_open = False
        self._due = self.deadline = FOREVER
        self._drop_body()
        self._parser.clear()
        front.idle.pop(self, None)
        front.incomplete.setdefault(self, None)
        self._mark_writing(front.monotonic())

    def _drop_body(self) -> None:
        if self._body is not None:
            self._front.buffered_bytes -= len(self._body)
            self._front.collecting.pop(self, None)
            self._body = None
