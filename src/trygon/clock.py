"""Time: the one place that reads a clock, so that tests can move it."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "RealClock"]


class Clock(Protocol):
    """Tells the time."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Return seconds since the epoch, for showing to people only."""
        ...


class RealClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    #: `monotonic` in whole nanoseconds, where making a float first costs too much.
    monotonic_ns = staticmethod(time.monotonic_ns)
