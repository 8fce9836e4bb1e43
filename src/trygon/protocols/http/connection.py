"""One client connection: requests in, answers out, one at a time and in order.

IDLE -> [BODY] -> ACTIVE -> IDLE, and CLOSING once the last answer is written (see `Phase`).
Nothing here awaits; every event is a callback.

A client that shuts its writing side has gone: nobody can tell a half-close from a close before writing, and
uvicorn and nginx cancel the work too.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from trygon.dataplane.frames import FrameFlag
from trygon.dataplane.gateway import RouteMatch, Upstream
from trygon.dataplane.messages import HttpMeta
from trygon.protocols.http import responses
from trygon.protocols.http.answering import AnsweringConnection
from trygon.protocols.http.errors import ProtocolError
from trygon.protocols.http.head import RequestHead
from trygon.protocols.http.lifetime import ACTIVE, BODY, CLOSED, CLOSING, FOREVER, IDLE
from trygon.protocols.http.own import own_answer
from trygon.protocols.http.websocket_session import WebSocketSession

__all__ = ["HttpConnection"]

_MORE: Final = int(FrameFlag.MORE)
#: Requests answered in one turn of the loop before others get theirs.
_MAX_PER_TURN: Final = 32


class HttpConnection(AnsweringConnection):
    """The server's side of one client connection."""

    __slots__ = ()

    # ---- the transport's events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client = _address(transport.get_extra_info("peername"))
        self._server_address = _address(transport.get_extra_info("sockname"))
        self._front.connection_opened(self)

    def opened(self) -> None:
        """Start waiting for the first request; called by the server when there is room."""
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        phase = self.phase
        if phase is CLOSED:
            return
        self.phase = CLOSED
        if phase is ACTIVE:
            self._cancel()
            self._note(499)
        self._head = None
        self._body_open = False
        self._due = self.deadline = FOREVER
        self._drop_body()
        self._parser.clear()
        self._front.connection_closed(self)

    def data_received(self, data: bytes) -> None:
        phase = self.phase
        if phase is IDLE:
            if not self._parser.buffer:
                self._received = self._front.monotonic()
            self._parser.feed(data)
            if not self._advancing:
                self._advance()
        elif phase is ACTIVE:
            self._parser.feed(data)
            if self._body_open:
                if not self._send_blocked:
                    self._stream_body()
            elif self._parser.buffered > self._front.settings.max_pipelined_bytes:
                self._pause_reading()
        elif phase is BODY:
            self._parser.feed(data)
            self._collect_body()
        elif phase is CLOSING:
            self._take_lingering(data)

    def eof_received(self) -> bool:
        return False

    # ---- taking requests

    def _advance(self) -> None:
        """Take requests out of the parser until one is in work or more bytes are needed."""
        if self._advancing:
            return
        self._advancing = True
        taken = 0
        try:
            while self.phase is IDLE and not self._write_paused:
                if taken == _MAX_PER_TURN:
                    self._pause_reading()
                    self._front.loop.call_soon(self._advance)
                    return
                head = self._parser.next_head()
                if head is None:
                    self._rest()
                    return
                taken += 1
                self._begin(head)
        except ProtocolError as error:
            self._refuse(error)
        finally:
            self._advancing = False

    def _rest(self) -> None:
        """Wait for (the rest of) a head."""
        if self._read_paused:
            self._resume_reading()
        front = self._front
        settings = front.settings
        if self._parser.buffer or not self._serial:
            if self not in front.incomplete:
                front.idle.pop(self, None)
                front.incomplete[self] = None
                self.deadline = FOREVER
                self._wait_until(front.monotonic() + settings.header_timeout_s)
        elif front.draining:
            self.close()
        else:
            front.idle[self] = None
            deadline = self.deadline = front.monotonic() + settings.keep_alive_timeout_s
            if deadline < self._visit:
                self._visit = deadline
                front.wheel.add(self, deadline)

    def _begin(self, head: RequestHead) -> None:
        front = self._front
        self._head = head
        self._route = None
        self._serial += 1
        self._started = self._accepted = front.monotonic()
        if front.idle.pop(self, self) is self:
            front.incomplete.pop(self, None)
        self._request_id = head.request_id or front.next_request_id()
        self._begun = False
        self._close_after = front.draining or not head.keep_alive
        self.deadline = FOREVER
        if self._read_paused and self._parser.buffered <= front.settings.max_pipelined_bytes:
            # A client that goes away is only noticed while its connection is read.
            self._resume_reading()
        if head.has_body:
            self._begin_body(head)
        else:
            self._dispatch(b"", more=False)

    def _begin_body(self, head: RequestHead) -> None:
        front = self._front
        limit = front.settings.max_body_bytes
        self._body_open = True
        if limit is not None and head.length > limit:
            raise ProtocolError(413, "body too large")
        data = self._parser.read_body()
        self._body_size = len(data)
        self._check_body_size()
        if self._parser.body_done:
            self._body_open = False
            self._dispatch(data, more=False)
            return
        if head.expects_continue and not data and not self._parser.buffered:
            is_own = head.is_own and front.settings.own_paths
            route = None if is_own else front.gateway.match(head.path)
            failure = None if route is None else front.gateway.full(route)
            if failure is not None:
                self.phase = ACTIVE
                self._route = route
                self._upstream = None
                self.on_failure(failure)
                return
            if route is None:
                # The client waits for a word before it sends the body: the final one will do.
                self._dispatch(b"", more=False)
                return
            self._transport.write(responses.CONTINUE)
        self.phase = BODY
        self._body = bytearray()
        self._body_mark = 0
        self._body_due = self._started + front.settings.body_timeout_s
        front.incomplete[self] = None
        front.collecting[self] = None
        self._wait_until(self._body_due)
        self._keep_body(data)

    def _collect_body(self) -> None:
        try:
            data = self._parser.read_body()
            self._body_size += len(data)
            self._check_body_size()
        except ProtocolError as error:
            self._refuse(error)
            return
        self._keep_body(data)

    def _keep_body(self, data: bytes) -> None:
        body = cast("bytearray", self._body)
        front = self._front
        body += data
        front.buffered_bytes += len(data)
        done = self._parser.body_done
        if done or len(body) >= front.settings.body_buffer_bytes:
            self._drop_body()
            self._accepted = front.monotonic()
            front.incomplete.pop(self, None)
            self._body_open = not done
            self._dispatch(bytes(body), more=not done)
        elif front.buffered_bytes > front.settings.max_buffered_bytes:
            front.shed_buffered()
        if self._body_open and self._parser.has_more:
            self._read_more_soon()

    def _check_body_size(self) -> None:
        limit = self._front.settings.max_body_bytes
        if limit is not None and self._body_size > limit:
            raise ProtocolError(413, "body too large")

    def _read_more_soon(self) -> None:
        """Read on in the next turn: the parser stopped to be fair to others."""
        self._pause_reading()
        self._front.loop.call_soon(self._read_more, self._serial)

    def _read_more(self, serial: int) -> None:
        if serial != self._serial or not self._body_open or self._send_blocked:
            return
        self._resume_reading()
        if self.phase is BODY:
            self._collect_body()
        elif self.phase is ACTIVE:
            self._stream_body()

    # ---- handing over

    def _dispatch(self, body: bytes, *, more: bool) -> None:
        """Give the request to its application, or answer it here."""
        front = self._front
        head = cast("RequestHead", self._head)
        self.phase = ACTIVE
        is_own = head.is_own and front.settings.own_paths
        route = None if is_own else front.gateway.match(head.path)
        self._route = route
        if route is None:
            status, text, lines = own_answer(head, front.gateway)
            self.on_response(status, 0, lines, text)
            return
        serial = self._serial
        self._upstream = None
        self._ungranted = 0
        self._send_blocked = False
        self._is_cancelled = False
        if head.is_websocket:
            self._open_websocket(head, route)
            return
        timeout_s = front.settings.request_timeout_s
        shorter_s = head.block.timeout_s
        if shorter_s > 0.0 and (timeout_s <= 0.0 or shorter_s < timeout_s):
            timeout_s = shorter_s
        meta = self._meta(head, route, self._limit_time(timeout_s) if timeout_s > 0.0 else 0.0)
        try:
            upstream = front.gateway.open(route, meta, body, more=more, sink=self)
        except Exception as error:  # noqa: BLE001
            self._report(error)
            return
        # The answer may have come inside `open`; then this upstream is over.
        if serial == self._serial:
            if self.phase is ACTIVE:
                self._adopt(upstream)
            elif self._is_cancelled:
                upstream.cancel()

    def _open_websocket(self, head: RequestHead, route: RouteMatch) -> None:
        session = WebSocketSession(self, self._front, self._transport)
        meta = self._meta(head, route, 0.0)
        serial = self._serial
        try:
            upstream = self._front.gateway.open(route, meta, b"", more=True, sink=session)
        except Exception as error:  # noqa: BLE001
            self._report(error)
            return
        if session.is_accepted:
            session.attach(upstream)
        elif serial == self._serial and self.phase is ACTIVE:
            self._adopt(upstream)

    def _report(self, error: Exception) -> None:
        """A request boundary: a fault of the gateway ends this request, not the link whose answer led here."""
        self._front.loop.call_exception_handler(
            {"message": "opening a request failed", "exception": error, "protocol": self}
        )
        if self.phase is ACTIVE and not self._begun:
            self._close_after = True
            self._fail(500, "Internal Server Error")
        else:
            self._transport.abort()

    def _meta(self, head: RequestHead, route: RouteMatch, deadline: float) -> HttpMeta:
        block = head.block
        # By position: names would cost 0.4 us.
        return HttpMeta(
            head.method,
            head.path,
            head.raw_path,
            head.query,
            head.fields,
            self._request_id,
            route.root_path,
            route.route_prefix,
            head.http_version,
            self._front.scheme,
            self._client,
            self._server_address,
            head.is_websocket,
            deadline,
            block.model_id,
            block.session_id,
        )

    def _limit_time(self, timeout_s: float) -> float:
        """Set the deadline of the request, and return it."""
        front = self._front
        self._timeout_s = timeout_s
        self._due = self._started + timeout_s
        front.add_request_deadline(self, self._due)
        return self._due

    def _adopt(self, upstream: Upstream) -> None:
        """Keep the upstream of the request in work."""
        self._upstream = upstream
        if self._ungranted and not self._write_paused:
            size, self._ungranted = self._ungranted, 0
            upstream.grant(size)

    def begin_websocket(self, session: WebSocketSession) -> tuple[bytes, Upstream | None, bytes, str] | None:
        """Give the transport up to a websocket session.

        Returns:
            Bytes that came after the handshake, the upstream, the client's key, the request id;
            None when the request is over.
        """
        if self.phase is not ACTIVE or self._begun:
            return None
        self._note(101)
        self.phase = CLOSED
        self.deadline = FOREVER
        self._resume_reading()
        self._front.session_opened(session)
        self._front.connection_closed(self)
        upstream, self._upstream = self._upstream, None
        key = cast("RequestHead", self._head).block.ws_key
        return self._parser.take_rest(), upstream, key, self._request_id

    # ---- streaming a large body to the application

    def _stream_body(self) -> None:
        parser = self._parser
        upstream = self._upstream
        if upstream is None:
            return
        try:
            data = parser.read_body()
            self._body_size += len(data)
            self._check_body_size()
        except ProtocolError as error:
            self._refuse(error)
            return
        if parser.body_done:
            self._body_open = False
            upstream.send(data, 0)
            if parser.buffered > self._front.settings.max_pipelined_bytes:
                self._pause_reading()
            return
        is_blocked = bool(data) and not upstream.send(data, _MORE)
        if not self._body_open:
            # Sending has ended the request.
            return
        if is_blocked:
            self._send_blocked = True
            self._pause_reading()
        elif parser.has_more:
            self._read_more_soon()

    def on_writable(self) -> None:
        self._send_blocked = False
        if self.phase is ACTIVE and self._body_open:
            self._resume_reading()
            if self._parser.buffered:
                self._stream_body()


def _address(name: object) -> tuple[str, int] | None:
    """Return host and port of a socket name, None for a Unix socket."""
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    return None
