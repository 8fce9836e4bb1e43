"""Adds up what happens to the requests of one sender."""

from __future__ import annotations

from trygon.loadtest.histogram import LatencyHistogram
from trygon.loadtest.result import Report, Second

__all__ = ["Recorder"]

_EXAMPLE = 200
#: An error text may differ in every answer, but these are kinds: statuses and a few words.
_BAD = 400


class Recorder:
    """Counts what was due from `begin` on; what was due before is the warm-up.

    Args:
        begin: When counting begins, on the clock that everything here is told in.
    """

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.latencies = LatencyHistogram()
        self.report = Report()

    def sent(self, due: float, *, is_late: bool) -> None:
        """Count a request of an open loop that left."""
        if due >= self.begin:
            self.report.sent += 1
            self.report.sent_late += is_late

    def answered(self, due: float, now: float, status: int, body: bytes) -> None:
        """Count an answer."""
        if due < self.begin:
            return
        if status >= _BAD:
            self.failed(due, now, f"HTTP {status}", body.decode(errors="replace"))
            return
        self.report.completed += 1
        latency_s = now - due
        self.latencies.record(latency_s)
        second = self._second(now)
        second.completed += 1
        second.highest_us = max(second.highest_us, int(latency_s * 1e6))

    def failed(self, due: float, now: float, kind: str, example: str = "") -> None:
        """Count a failure."""
        if due < self.begin:
            return
        failures = self.report.failures
        if kind not in failures:
            self.report.examples[kind] = example[:_EXAMPLE]
        failures[kind] = failures.get(kind, 0) + 1
        self._second(now).failed += 1

    @property
    def num_ended(self) -> int:
        """Counted requests that ended."""
        return self.report.completed + sum(self.report.failures.values())

    def snapshot(self, elapsed_s: float) -> Report:
        """Return all of it; valid until the next call into this object."""
        self.report.counts = self.latencies.counts
        self.report.highest_us = self.latencies.highest_us
        self.report.elapsed_s = max(0.0, elapsed_s)
        return self.report

    def _second(self, now: float) -> Second:
        seconds, number = self.report.seconds, int(now - self.begin)
        found = seconds.get(number)
        if found is None:
            found = seconds[number] = Second()
        return found
