"""How long loads and unloads took: a histogram, so that any number of them takes the same memory."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

__all__ = ["BOUNDS_S", "Durations", "DurationsRecord"]

#: Upper bounds of the buckets, in seconds; one more bucket has what took longer.
BOUNDS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0),
)


@dataclass(frozen=True)
class Durations:
    """A histogram of durations.

    Attributes:
        counts: How many took at most each of `bounds_s`, and more than the one before; the last took longer than all.
        total_s: Seconds of all together.
        bounds_s: Upper bounds of the buckets, in seconds.
    """

    counts: tuple[int, ...]
    total_s: float
    bounds_s: tuple[float, ...] = BOUNDS_S

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class DurationsRecord:
    """Counts durations."""

    __slots__ = ("_counts", "_total_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._total_s += seconds

    def snapshot(self) -> Durations:
        """Return what was counted."""
        return Durations(tuple(self._counts), self._total_s)
