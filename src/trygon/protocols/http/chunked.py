"""The chunked transfer coding (RFC 9112, 7.1), strictly and incrementally.

Pure. Sizes are at most 16 hexadecimal digits, lines end in CR LF and nothing else, extensions and
trailers are validated, bounded and dropped.
"""

from __future__ import annotations

import re
from typing import Final

from trygon.protocols.http.errors import ProtocolError
from trygon.protocols.http.head import FIELD_LINES, TOKEN

__all__ = ["ChunkedDecoder"]

_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_match_size_line = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*+;[ \t]*+["
    + TOKEN
    + rb"]++(?:[ \t]*+=[ \t]*+(?:["
    + TOKEN
    + rb"]++|"
    + _QUOTED
    + rb"))?+)*+)\r\n"
).match
#: What a size line that has not arrived whole may look like so far.
_match_size_start = re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t;][\t\x20-\x7e\x80-\xff]*+)?\r?\Z").match

_MAX_SIZE_LINE: Final = 1024
#: Of one whole body: extensions cost time and carry nothing.
_MAX_EXTENSION_BYTES: Final = 16384
_MAX_TRAILER_BYTES: Final = 8192
#: Chunks decoded in one call, so that a body of one-byte chunks cannot hold up the loop (about 1 us each).
_MAX_CHUNKS_PER_CALL: Final = 1024

_SIZE, _SIZE_PARTIAL, _DATA, _DATA_END, _TRAILER, _DONE = range(6)

_Buffer = bytes | bytearray


class ChunkedDecoder:
    """Decodes one body out of a buffer that the caller keeps.

    Attributes:
        is_done: The last chunk and the trailers were read.
        has_more: The last call stopped at its bound on chunks, not for want of input.
    """

    __slots__ = ("_extension_bytes", "_left", "_state", "has_more", "is_done")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._extension_bytes = 0
        self.is_done = False
        self.has_more = False

    def decode(self, buffer: _Buffer, pos: int) -> tuple[bytes, int]:
        """Return the body bytes found from `pos` on, and the position of the first byte not used."""
        parts: list[_Buffer] = []
        self.has_more = False
        if self._state == _SIZE_PARTIAL:
            self._state = _SIZE
        for _ in range(_MAX_CHUNKS_PER_CALL):
            if self._state == _SIZE:
                pos = self._read_size(buffer, pos)
            if self._state == _DATA:
                part = buffer[pos : pos + self._left]
                parts.append(part)
                pos += len(part)
                self._left -= len(part)
                if not self._left:
                    self._state = _DATA_END
            if self._state == _DATA_END:
                pos = self._read_data_end(buffer, pos)
            # In any other state the input is used up, or the body.
            if self._state != _SIZE or pos == len(buffer):
                break
        else:
            self.has_more = True
        if self._state == _TRAILER:
            pos = self._read_trailer(buffer, pos)
        if len(parts) == 1:
            return bytes(parts[0]), pos
        return b"".join(parts), pos

    def _read_size(self, buffer: _Buffer, pos: int) -> int:
        match = _match_size_line(buffer, pos)
        if match is None:
            # Refuse an incomplete line as soon as it cannot become a good one.
            left = len(buffer) - pos
            if left and (left > _MAX_SIZE_LINE or _match_size_start(buffer, pos) is None):
                raise ProtocolError(400, "malformed chunk size")
            self._state = _SIZE_PARTIAL
            return pos
        end = match.end()
        if end - pos > _MAX_SIZE_LINE:
            raise ProtocolError(400, "chunk extension too long")
        self._extension_bytes += match.end(2) - match.start(2)
        if self._extension_bytes > _MAX_EXTENSION_BYTES:
            raise ProtocolError(400, "too many chunk extensions")
        self._left = int(match.group(1), 16)
        self._state = _DATA if self._left else _TRAILER
        return end

    def _read_data_end(self, buffer: _Buffer, pos: int) -> int:
        end = buffer[pos : pos + 2]
        if end == b"\r\n":
            self._state = _SIZE
            return pos + 2
        if not b"\r\n".startswith(end):
            raise ProtocolError(400, "chunk data longer than its size")
        return pos

    def _read_trailer(self, buffer: _Buffer, pos: int) -> int:
        end = _find_trailer_end(buffer, pos, len(buffer))
        if end < 0:
            return pos
        self._state = _DONE
        self.is_done = True
        return end


def _find_trailer_end(buffer: _Buffer, pos: int, size: int) -> int:
    """Return the position after the trailer section, or -1 when it is incomplete."""
    start = buffer[pos : pos + 2]
    if start == b"\r\n":
        return pos + 2
    if b"\r\n".startswith(start):
        return -1
    end = buffer.find(b"\r\n\r\n", pos, pos + _MAX_TRAILER_BYTES)
    if end < 0:
        if size - pos >= _MAX_TRAILER_BYTES:
            raise ProtocolError(431, "trailer section too large")
        # Whole lines so far must be good; the rest may still come.
        last = buffer.rfind(b"\r\n", pos)
        whole = last + 2 if last >= 0 else pos
        if FIELD_LINES(buffer, pos, whole) is None or buffer.find(b"\n", whole) >= 0:
            raise ProtocolError(400, "malformed trailer")
        return -1
    if FIELD_LINES(buffer, pos, end + 2) is None:
        raise ProtocolError(400, "malformed trailer")
    return end + 4
