"""How an answer is written: framing, lengths that must be kept, backpressure, failures, the log line.

`AnsweringConnection` is the `ResponseSink` of the request in work.
"""

from __future__ import annotations

import math
import socket
import struct
from typing import Final, cast

from trygon.dataplane.frames import FrameFlag
from trygon.dataplane.gateway import Failure
from trygon.protocols.http import responses
from trygon.protocols.http.errors import ProtocolError
from trygon.protocols.http.head import RequestHead
from trygon.protocols.http.lifetime import ACTIVE, FOREVER, IDLE, ConnectionLifetime
from trygon.protocols.http.responses import LENGTH_LINES

__all__ = ["AnsweringConnection"]

_MORE: Final = int(FrameFlag.MORE)
_LENGTH: Final = int(FrameFlag.LENGTH)
#: Larger parts are handed to the transport as they are; smaller ones are joined with their framing.
_JOIN_BYTES: Final = 16384
#: SO_LINGER on, for zero seconds: closing sends a reset.
_RESET: Final = struct.pack("ii", 1, 0)
_TEXT_LINE: Final = b"content-type: text/plain; charset=utf-8\r\n"
_NO_BODY: Final = frozenset((204, 304))


class AnsweringConnection(ConnectionLifetime):
    """The sink of the answer to a connection's current request."""

    __slots__ = ()

    def on_response(self, status: int, flags: int, head: bytes, body: bytes) -> None:
        if self.phase is not ACTIVE or self._begun:
            return
        request = cast("RequestHead", self._head)
        if flags & _MORE or request.is_head or status < 200 or status in _NO_BODY or status > 999:
            self._begin_answer(request, status, flags, head, body)
            return
        size = len(body)
        line = LENGTH_LINES[size] if size < 1024 else b"content-length: %d\r\n" % size
        if not flags & _LENGTH:
            head += line
        else:
            at = head.find(line)
            if at < 0 or (at and head[at - 1] != 10) or head.count(b"content-length:") != 1:
                # Another spelling, another length than the body has, or several.
                self._begin_answer(request, status, flags, head, body)
                return
        if self._body_open:
            self._close_after = True
        if self._close_after:
            head += responses.CLOSE_LINE
        elif request.is_10:
            head += responses.KEEP_ALIVE_LINE
        first = self._front.prefixes[status] + self._request_id.encode() + b"\r\n" + head + b"\r\n"
        if size < _JOIN_BYTES:
            self._transport.write(first + body)
        else:
            self._transport.writelines((first, body))
        self._finish(status)

    def _begin_answer(self, request: RequestHead, status: int, flags: int, head: bytes, body: bytes) -> None:
        """Write the head of an answer that is streamed, has no body, or counts its length otherwise."""
        left = -1
        chunked = discard = False
        if status < 200 or status > 999:
            self._fail_invalid()
            return
        if request.is_head or status in _NO_BODY:
            discard = True
            if status == 204:
                head = responses.without_length(head)
            elif not flags & (_LENGTH | _MORE) and status != 304:
                head += responses.length_line(len(body))
        elif flags & _LENGTH:
            left = responses.content_length(head)
            if left < 0:
                self._fail_invalid()
                return
        elif request.is_10:
            self._close_after = True
        else:
            chunked = True
            head += responses.CHUNKED_LINE
        if self._body_open:
            self._close_after = True
        if self._close_after:
            head += responses.CLOSE_LINE
        elif request.is_10:
            head += responses.KEEP_ALIVE_LINE
        self._begun = True
        self._status = status
        self._left = left
        self._chunked = chunked
        self._discard = discard
        first = self._front.prefixes[status] + self._request_id.encode() + b"\r\n" + head + b"\r\n"
        self._transport.write(first)
        if body or not flags & _MORE:
            self.on_data(body, flags & _MORE)

    def on_data(self, data: bytes, flags: int) -> None:
        if self.phase is not ACTIVE or not self._begun:
            return
        size = len(data)
        more = flags & _MORE
        if self._chunked:
            if size:
                tail = b"\r\n" if more else b"\r\n0\r\n\r\n"
                if size < _JOIN_BYTES:
                    self._transport.write(b"%x\r\n%b%b" % (size, data, tail))
                else:
                    self._transport.writelines((b"%x\r\n" % size, data, tail))
            elif not more:
                self._transport.write(responses.LAST_CHUNK)
        elif not self._discard and not self._write_counted(data, size, more):
            return
        if not more:
            self._finish(self._status)
        elif self._write_paused and not self._discard:
            self._ungranted += size
            self._written_paused += size
        elif self._upstream is not None:
            self._upstream.grant(size)
        else:
            self._ungranted += size

    def _write_counted(self, data: bytes, size: int, more: int) -> bool:
        """Write a part of a body that ends at its length or with the connection; False when that ended it."""
        left = self._left
        if left >= 0:
            if size > left:
                # The client was promised less: it gets what was promised, and no more requests.
                self._transport.write(data[:left])
                if more:
                    self._cancel()
                self._close_after = True
                self._finish(self._status)
                return False
            self._left = left - size
        if size:
            self._transport.write(data)
        if not more and left > size:
            self._cut(self._status)
            return False
        return True

    def on_failure(self, failure: Failure) -> None:
        if self.phase is not ACTIVE:
            return
        if self._begun:
            self._cut(failure.status)
            return
        self._fail(failure.status, failure.reason, failure.retry_after_s)

    def _fail(self, status: int, reason: str, retry_after_s: float | None = None) -> None:
        """Answer the request with a text of ours."""
        head = _TEXT_LINE
        if retry_after_s is not None:
            head += b"retry-after: %d\r\n" % max(1, math.ceil(retry_after_s))
        self.on_response(status, 0, head, reason.encode("utf-8", "replace"))

    def _fail_invalid(self) -> None:
        """The application's answer cannot be an HTTP response."""
        self._cancel()
        self._close_after = True
        self._fail(500, "Internal Server Error")

    def on_timeout(self, now: float) -> None:
        """Answer 408 if the request in work has run out of its time; called when its deadline may have passed."""
        if now < self._due:
            if self._due < FOREVER:
                self._front.add_request_deadline(self, self._due)
            return
        if self.phase is not ACTIVE:
            return
        self._cancel()
        if self._begun:
            self._cut(408)
        else:
            self._fail(408, "Request %s timed out after %gs." % (self._request_id, self._timeout_s))

    def _finish(self, status: int) -> None:
        """The answer is written whole."""
        self._note(status)
        self._upstream = None
        self._head = None
        self._due = FOREVER
        if self._close_after:
            if self._body_open:
                self._linger()
            else:
                self.close()
            return
        self.phase = IDLE
        if not self._advancing:
            if self._parser.buffer or self._write_paused:
                self._advance()
            else:
                self._rest()

    def _note(self, status: int) -> None:
        """Count and log one request."""
        front = self._front
        now = front.monotonic()
        latency_s = now - self._started
        front.num_by_class[status // 100] += 1
        front.latency_sum_s += latency_s
        metrics = front.metrics
        if metrics is not None:
            method = self._head.method if self._head is not None else ""
            metrics.note(self._route, method, status, latency_s, self._accepted - self._received)
            # What the client has sent ahead has waited until now.
            self._received = now
        log = front.log
        if log is not None:
            head = self._head
            route = self._route
            if head is not None and route is not None:
                if route.access_log:
                    log.add(self._request_id, head.method, route.route_prefix, status, now, latency_s)
            elif front.settings.access_log:
                method, path = ("-", "-") if head is None else (head.method, head.raw_path.decode("ascii"))
                log.add(self._request_id, method, path, status, now, latency_s)

    def _cancel(self) -> None:
        upstream = self._upstream
        self._is_cancelled = True
        if upstream is not None:
            self._upstream = None
            upstream.cancel()

    def _cut(self, status: int) -> None:
        """End a begun answer so that the client sees that it is incomplete."""
        self._cancel()
        self._note(status)
        self._head = None
        if self._chunked or self._left >= 0 or self._discard:
            self.close()
            return
        # The end of the connection is the end of the body here, so it must not be an orderly one.
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._end()
        self._transport.abort()

    def _refuse(self, error: ProtocolError, *, lingers: bool = True) -> None:
        """Answer a request that breaks the protocol, and end the connection."""
        if self.phase is ACTIVE:
            self._cancel()
            if self._begun:
                self._cut(error.status)
                return
        front = self._front
        head = self._head
        if head is None:
            # What arrived has become no request, so nothing is known of it.
            self._serial += 1
            self._started = front.monotonic()
            self._request_id = front.next_request_id()
            self._route = None
        text = error.reason.encode()
        parts = (
            front.prefixes[error.status],
            self._request_id.encode(),
            b"\r\n",
            _TEXT_LINE,
            responses.length_line(len(text)),
            error.lines,
            responses.CLOSE_LINE,
            b"\r\n",
            b"" if head is not None and head.is_head else text,
        )
        self._transport.write(b"".join(parts))
        self._note(error.status)
        self._head = None
        if lingers:
            self._linger()
        else:
            self.close()
