"""The constant parts of answers, encoded once: status lines, the date, lengths, our own texts."""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

__all__ = [
    "CHUNKED_LINE",
    "CLOSE_LINE",
    "CONTINUE",
    "KEEP_ALIVE_LINE",
    "LAST_CHUNK",
    "LENGTH_LINES",
    "Prefixes",
    "content_length",
    "length_line",
    "text_head",
    "without_length",
]

CHUNKED_LINE: Final = b"transfer-encoding: chunked\r\n"
CLOSE_LINE: Final = b"connection: close\r\n"
#: An HTTP/1.0 client keeps the connection only when told so.
KEEP_ALIVE_LINE: Final = b"connection: keep-alive\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: Most answers of a model are short; the rest is formatted on the fly.
LENGTH_LINES: Final = tuple(b"content-length: %d\r\n" % n for n in range(1024))

_find_lengths = re.compile(
    rb"(?:(?<=\n)|\A)content-length:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE
).findall
_is_length = re.compile(rb"[0-9]{1,18}").fullmatch
_drop_length = re.compile(rb"(?:(?<=\n)|\A)content-length:[^\r\n]*\r\n", re.IGNORECASE).sub

_REASONS = {status.value: status.phrase for status in HTTPStatus}
#: Named by the RFCs, but older Pythons use other words.
_REASONS.update({413: "Content Too Large", 422: "Unprocessable Content", 499: "Client Closed Request"})


class Prefixes(dict[int, bytes]):
    """Status -> everything before the request id: status line, date line, ``x-request-id:``.

    Filled on demand, emptied when the second changes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._second = -1
        self._date = b""

    def set_time(self, wall: float) -> None:
        """Use this time of day, in seconds since the epoch."""
        second = int(wall)
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True).encode("ascii")
            self.clear()

    def __missing__(self, status: int) -> bytes:
        reason = _REASONS.get(status, "").encode("ascii")
        prefix = b"HTTP/1.1 %d %b\r\ndate: %b\r\nx-request-id: " % (status, reason, self._date)
        self[status] = prefix
        return prefix


def length_line(size: int) -> bytes:
    """Return the content-length line for a body of `size` bytes."""
    return LENGTH_LINES[size] if size < 1024 else b"content-length: %d\r\n" % size


def content_length(head: bytes) -> int:
    """Return the length that header lines promise, or -1 when they promise none, nonsense, or several."""
    found = _find_lengths(head)
    return int(found[0]) if len(found) == 1 and _is_length(found[0]) else -1


def without_length(head: bytes) -> bytes:
    """Return header lines without content-length, which a 204 must not have (RFC 9110, 8.6)."""
    return _drop_length(b"", head)


def text_head(size: int) -> bytes:
    """Return the header lines of a plain-text answer of ours."""
    return b"content-type: text/plain; charset=utf-8\r\n" + length_line(size)
