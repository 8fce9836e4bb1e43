"""What is wrong with the bytes of a client, as the answer it gets."""

from __future__ import annotations

from trygon.errors import TrygonError

__all__ = ["ProtocolError"]


class ProtocolError(TrygonError):
    """A request that breaks HTTP; the connection is closed after the answer.

    Args:
        status: HTTP status of the answer.
        reason: One line for the body.
        lines: Header lines to add, each ending in CR LF.
    """

    def __init__(self, status: int, reason: str, lines: bytes = b"") -> None:
        super().__init__(status, reason, lines)
        self.status = status
        self.reason = reason
        self.lines = lines

    def __str__(self) -> str:
        return self.reason
