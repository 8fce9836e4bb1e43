"""What can go wrong in the harness and is told in one paragraph instead of a traceback."""

from __future__ import annotations

__all__ = ["BenchError", "Unavailable"]


class BenchError(Exception):
    """The run cannot go on; the text says what to do."""


class Unavailable(BenchError):
    """One system cannot be measured; the table shows the reason and the run goes on."""
