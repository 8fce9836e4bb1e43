"""One connection of a load test: sends a request, reads the answer, says what came of it."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

__all__ = ["Connection", "Owner"]

_EXAMPLE_BYTES = 200


class Owner(Protocol):
    """Hears how requests end."""

    def on_answer(self, connection: Connection, status: int, body: bytes) -> None:
        """An answer is complete; `body` is its first part."""

    def on_failure(self, connection: Connection, kind: str) -> None:
        """The request under way has failed; the connection is of no more use."""

    def on_closed(self, connection: Connection) -> None:
        """The connection is gone."""


class Connection(asyncio.Protocol):
    """Carries one request at a time.

    Args:
        owner: Who hears of it.
        is_head: Answers have no body, whatever their length says.
    """

    __slots__ = (
        "_body",
        "_is_head",
        "_owner",
        "_parser",
        "_transport",
        "due",
        "is_busy",
        "is_kept",
        "received",
    )

    def __init__(self, owner: Owner, *, is_head: bool) -> None:
        self._owner = owner
        self._is_head = is_head
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        #: When the request under way was due.
        self.due = 0.0
        self.is_busy = False
        #: Whether it may carry another request.
        self.is_kept = True
        self.received = 0

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at `due`."""
        assert self._transport is not None
        self.due = due
        self.is_busy = True
        self._body = b""
        self._transport.write(request)

    def drop(self) -> None:
        """Close it now; nobody is told of its request."""
        self.is_busy = False
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("malformed answer")

    def eof_received(self) -> None:
        # An answer without a length ends with its connection.
        if self.is_busy and self._parser.get_http_version() and self._has_begun():
            self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_busy:
            self._fail("connection reset" if exc is not None else "connection closed")
        self._transport = None
        self._owner.on_closed(self)

    # ---- httptools

    def on_body(self, body: bytes) -> None:
        if len(self._body) < _EXAMPLE_BYTES:
            self._body += body[: _EXAMPLE_BYTES - len(self._body)]

    def on_headers_complete(self) -> None:
        if self._is_head:
            self._complete()

    def on_message_complete(self) -> None:
        self._complete()

    def _has_begun(self) -> bool:
        return bool(self._parser.get_status_code())

    def _complete(self) -> None:
        status = self._parser.get_status_code()
        if not self.is_busy or 100 <= status < 200:
            return
        self.is_busy = False
        self.is_kept = self.is_kept and self._parser.should_keep_alive()
        if self._is_head:
            # The parser waits for a body that does not come.
            self._parser = httptools.HttpResponseParser(self)
        self._owner.on_answer(self, status, self._body)

    def _fail(self, kind: str) -> None:
        if self.is_busy:
            self.is_busy = False
            self.is_kept = False
            self._owner.on_failure(self, kind)
            if self._transport is not None:
                self._transport.abort()
