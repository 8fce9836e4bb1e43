"""Requests out of the bytes of one connection, pulled one at a time, so that pipelined ones wait.

Pure (sans I/O). The caller feeds what arrives, takes a head, reads its body to the end, takes the next head.

Judging a head costs 3.5 us for one Host line and 8 us for ten header lines; httptools costs 0.7 and 2 us but
lets bare LF and folded lines through. Clients that keep a connection repeat their heads, so the last head and
the last header block of the connection are kept: a repeated head costs 0.4 us, another target 2.5 us.
"""

from __future__ import annotations

import re
from typing import Final

from trygon.protocols.http.chunked import ChunkedDecoder
from trygon.protocols.http.errors import ProtocolError
from trygon.protocols.http.head import TOKEN, HeaderBlock, HeadParser, RequestHead
from trygon.protocols.http.settings import HttpSettings

__all__ = ["RequestParser"]

_find_bare = re.compile(rb"(?<!\r)\n|\r[^\n]").search
_starts_like_request = re.compile(rb"[" + TOKEN + rb"]++(?: |\Z)").match
_MAX_METHOD: Final = 32
#: Method, spaces and version beside the target.
_LINE_EXTRA: Final = 64
#: A larger head is not kept: an idle connection must stay small.
_MAX_KEPT_HEAD: Final = 4096


class RequestParser:
    """The requests of one connection.

    Attributes:
        body_done: The body of the current request has been read to its end.
        buffer: What was fed and not used, behind what was used; empty when all is used.
        has_more: `read_body` stopped early to be fair to others; call it again soon.
    """

    __slots__ = (
        "_chunks",
        "_kept_block",
        "_kept_head",
        "_kept_lines",
        "_kept_raw",
        "_left",
        "_max_head",
        "_max_target",
        "_pos",
        "_rules",
        "_scanned",
        "_skipped",
        "body_done",
        "buffer",
        "has_more",
    )

    def __init__(self, rules: HeadParser, settings: HttpSettings) -> None:
        self._rules = rules
        self._max_head = settings.max_head_bytes
        self._max_target = settings.max_target_bytes
        self.buffer: bytes | bytearray = b""
        #: Everything before it is used.
        self._pos = 0
        #: No end of a head lies before it.
        self._scanned = 0
        #: The one empty line that may precede a request has been seen.
        self._skipped = False
        self._kept_raw = b""
        self._kept_head: RequestHead | None = None
        self._kept_lines = b""
        self._kept_block: HeaderBlock | None = None
        #: Body bytes to come, when the length is known.
        self._left = 0
        self._chunks: ChunkedDecoder | None = None
        self.body_done = True
        self.has_more = False

    @property
    def buffered(self) -> int:
        """Bytes fed and not used yet."""
        return len(self.buffer) - self._pos

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection."""
        buffer = self.buffer
        if not buffer:
            self.buffer = data
            return
        if self._pos:
            buffer = buffer[self._pos :]
            self._scanned = max(0, self._scanned - self._pos)
            self._pos = 0
        if isinstance(buffer, bytes):
            buffer = bytearray(buffer)
        buffer += data
        self.buffer = buffer

    def clear(self) -> None:
        """Forget what was fed: the connection is ending."""
        self.buffer = b""
        self._pos = self._scanned = 0

    def take_rest(self) -> bytes:
        """Return and forget all unused bytes: the connection goes on with another protocol."""
        rest = bytes(self.buffer[self._pos :])
        self.clear()
        return rest

    def next_head(self) -> RequestHead | None:
        """Return the next request's head, or None until more is fed; the previous body must have been read.

        Raises:
            ProtocolError: The bytes are no request that may be served; the connection must end.
        """
        buffer = self.buffer
        pos = self._pos
        if not buffer:
            return None
        if buffer[pos] == 13:
            pos = self._skip_empty_line()
            if pos < 0:
                return None
        end = buffer.find(b"\r\n\r\n", self._scanned)
        if end < 0:
            self._check_partial(pos)
            return None
        raw = buffer[pos : end + 2]
        head = self._kept_head
        if head is None or raw != self._kept_raw:
            head = self._judge(bytes(raw))
        end += 4
        if end == len(buffer):
            self.buffer = b""
            self._pos = self._scanned = 0
        else:
            self._pos = self._scanned = end
        self._skipped = False
        if head.has_body:
            self.body_done = False
            if head.length > 0:
                self._left = head.length
            else:
                self._chunks = ChunkedDecoder()
        return head

    def read_body(self) -> bytes:
        """Return the body bytes that have arrived and were not read yet; `body_done` tells whether that is all.

        Raises:
            ProtocolError: The chunked coding is broken; the connection must end.
        """
        buffer = self.buffer
        pos = self._pos
        chunks = self._chunks
        if chunks is not None:
            data, pos = chunks.decode(buffer, pos)
            self.has_more = chunks.has_more
            if chunks.is_done:
                self._chunks = None
                self.body_done = True
        else:
            data = bytes(buffer[pos : pos + self._left]) if pos or len(buffer) > self._left else bytes(buffer)
            pos += len(data)
            self._left -= len(data)
            if not self._left:
                self.body_done = True
        if pos == len(buffer):
            self.buffer = b""
            self._pos = self._scanned = 0
        else:
            self._pos = self._scanned = pos
        return data

    def _judge(self, raw: bytes) -> RequestHead:
        if len(raw) + 2 > self._max_head:
            raise ProtocolError(431, "request head too large")
        split = raw.find(b"\r\n")
        line = raw[:split]
        lines = raw[split + 2 :]
        block = self._kept_block
        if block is None or lines != self._kept_lines:
            block = self._rules.parse_block(lines)
        head = self._rules.parse_line(line, block)
        if len(raw) <= _MAX_KEPT_HEAD:
            self._kept_raw = raw
            self._kept_head = head
            self._kept_lines = lines
            self._kept_block = block
        return head

    def _skip_empty_line(self) -> int:
        """Step over one CR LF before a request (RFC 9112, 2.2); return the new position, -1 for "wait"."""
        start = self.buffer[self._pos : self._pos + 2]
        if start == b"\r":
            return -1
        if start != b"\r\n" or self._skipped:
            raise ProtocolError(400, "malformed request line")
        self._skipped = True
        self._pos += 2
        self._scanned = max(self._scanned, self._pos)
        if self._pos == len(self.buffer):
            self.clear()
            return -1
        return self._skip_empty_line() if self.buffer[self._pos] == 13 else self._pos

    def _check_partial(self, pos: int) -> None:
        """Refuse an incomplete head as soon as it cannot become a good one."""
        buffer = self.buffer
        size = len(buffer)
        start = _starts_like_request(buffer, pos)
        if start is None:
            raise ProtocolError(400, "malformed request line")
        if start.end() - pos > _MAX_METHOD + 1:
            raise ProtocolError(501, "method not implemented")
        if _find_bare(buffer, max(pos, self._scanned - 1)) is not None:
            raise ProtocolError(400, "bare CR or LF in header")
        if size - pos > self._max_target + _LINE_EXTRA and (
            buffer.find(b"\r\n", pos, pos + self._max_target + _LINE_EXTRA) < 0
        ):
            raise ProtocolError(414, "request target too long")
        if size - pos > self._max_head:
            raise ProtocolError(431, "request head too large")
        self._scanned = max(pos, size - 3)
