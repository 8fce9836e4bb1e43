"""Requests, errors and latencies of the last minute, in slots of five seconds. Pure.

Slots are numbered by the machine's monotonic clock, so those of several processes can be added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["SLOT_S", "WINDOW_S", "Key", "Slots", "Total", "Traffic", "TrafficLog", "quantile", "traffic_of"]

SLOT_S: Final = 5
_NUM_SLOTS: Final = 12
#: What rates and quantiles are of.
WINDOW_S: Final = SLOT_S * _NUM_SLOTS

#: [number of the slot, errors, counts of the latency's buckets], oldest first.
Slots = list[tuple[int, int, list[int]]]
Key = tuple[str, str]
#: Since the process began: errors, and the counts of the buckets.
Total = tuple[int, Sequence[int]]


class TrafficLog:
    """Keeps what the counts of one process gained in each of the last slots."""

    def __init__(self) -> None:
        self._seen: dict[Key, tuple[int, list[int]]] = {}
        self._slots: dict[Key, Slots] = {}

    def update(self, now: float, totals: Mapping[Key, Total]) -> dict[Key, Slots]:
        """Take the counts of this moment; return the slots to publish."""
        number = int(now // SLOT_S)
        for key, (errors, counts) in totals.items():
            errors_before, before = self._seen.get(key, (0, [0] * len(counts)))
            gained = [count - old for count, old in zip(counts, before, strict=True)]
            self._seen[key] = (errors, list(counts))
            if not any(gained):
                continue
            slots = self._slots.setdefault(key, [])
            if not slots or slots[-1][0] != number:
                slots.append((number, 0, [0] * len(counts)))
            _, errors_there, there = slots[-1]
            added = [old + new for old, new in zip(there, gained, strict=True)]
            slots[-1] = (number, errors_there + errors - errors_before, added)
        for key, slots in list(self._slots.items()):
            kept = [slot for slot in slots if slot[0] > number - _NUM_SLOTS]
            if kept:
                self._slots[key] = kept
            else:
                del self._slots[key]
        return {key: list(slots) for key, slots in self._slots.items()}


class Traffic(NamedTuple):
    """The last minute of an application or a deployment; quantiles are None without a request."""

    requests_per_s: float
    errors_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def traffic_of(parts: Iterable[Slots], bounds: Sequence[float], now: float) -> Traffic:
    """Add up the slots of several processes."""
    number = int(now // SLOT_S)
    counts = [0] * (len(bounds) + 1)
    errors = 0
    for slots in parts:
        for slot, slot_errors, slot_counts in slots:
            if number - _NUM_SLOTS < slot <= number and len(slot_counts) == len(counts):
                errors += slot_errors
                counts = [a + b for a, b in zip(counts, slot_counts, strict=True)]
    # The newest slot is not over yet.
    length_s = WINDOW_S - SLOT_S + now % SLOT_S
    return Traffic(
        sum(counts) / length_s,
        errors / length_s,
        *(quantile(share, bounds, counts) for share in (0.5, 0.95, 0.99)),
    )


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """Return the value below which `share` of the observations are, as Prometheus interpolates it.

    In the bucket without a bound it is the last bound.
    """
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    below, passed = 0.0, 0
    for bound, count in zip(bounds, counts, strict=False):
        if count and passed + count >= rank:
            return below + (bound - below) * max(rank - passed, 0.0) / count
        passed += count
        below = bound
    return below
