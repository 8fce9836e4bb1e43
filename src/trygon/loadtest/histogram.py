"""Latencies in buckets that grow with the value: any number of them in a few kilobytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LatencyHistogram"]

#: Buckets of each power of two: a quantile is right to 1 part in 128.
_BITS = 7
_PER_US = 1_000_000


class LatencyHistogram:
    """Counts latencies; exact to a microsecond below 256 us, to 0.8 % above.

    The buckets are those of HdrHistogram: linear within a power of two, so the error is relative.

    Args:
        counts: By bucket, as `counts` of another one.
        highest_us: The largest latency in them, in microseconds.
    """

    __slots__ = ("counts", "highest_us", "total")

    def __init__(self, counts: Mapping[int, int] | None = None, highest_us: int = 0) -> None:
        self.counts: dict[int, int] = dict(counts or {})
        self.total = sum(self.counts.values())
        self.highest_us = highest_us

    def record(self, latency_s: float) -> None:
        """Count one latency in seconds; a negative one counts as 0."""
        value = int(latency_s * _PER_US)
        if value > self.highest_us:
            self.highest_us = value
        elif value < 0:
            value = 0
        shift = value.bit_length() - _BITS - 1
        bucket = value if shift <= 0 else (shift << _BITS) + (value >> shift)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total += 1

    def merge(self, other: LatencyHistogram) -> None:
        """Add the latencies of another one."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.highest_us = max(self.highest_us, other.highest_us)

    def quantile(self, share: float) -> float:
        """Return the latency in seconds that `share` of all do not exceed; 0 when there are none."""
        if not self.total:
            return 0.0
        wanted = max(1.0, share * self.total)
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(_upper_us(bucket), self.highest_us) / _PER_US
        return self.highest_us / _PER_US

    @property
    def highest_s(self) -> float:
        """The largest latency, in seconds."""
        return self.highest_us / _PER_US

    @property
    def mean_s(self) -> float:
        """The mean, in seconds, as exact as the buckets are; 0 when there are none."""
        if not self.total:
            return 0.0
        return sum(count * _upper_us(bucket) for bucket, count in self.counts.items()) / self.total / _PER_US


def _upper_us(bucket: int) -> int:
    """Return the largest value of a bucket, in microseconds."""
    if bucket < 2 << _BITS:
        return bucket
    shift = (bucket >> _BITS) - 1
    return ((bucket - (shift << _BITS) + 1) << shift) - 1
