"""What the admin API answers: a status, a body and its type, with header lines that keep browsers out."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["Answer", "failure", "head_lines", "json_answer"]

_JSON: Final = "application/json"
#: On every answer: nothing here is a page, is to be guessed at, framed, or kept.
_GUARDS: Final = (
    b"content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"referrer-policy: no-referrer\r\n"
    b"cache-control: no-store\r\n"
)


class Answer(msgspec.Struct, frozen=True):
    """One answer."""

    status: int
    body: bytes = b""
    content_type: str = _JSON
    #: More header lines: lower-case name, value.
    headers: tuple[tuple[str, str], ...] = ()


def json_answer(value: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Return a value as JSON."""
    return Answer(status, msgspec.json.encode(value), headers=headers)


def failure(status: int, error: str, *, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Return an error as clients of the API read it."""
    return json_answer({"error": error}, status=status, headers=headers)


def head_lines(answer: Answer) -> bytes:
    """Return the header lines of an answer, each ending in CR LF; the length is the connection's to write."""
    lines = [f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in answer.headers]
    if answer.body:
        lines.append(f"content-type: {answer.content_type}\r\n".encode())
    return b"".join((*lines, _GUARDS))
