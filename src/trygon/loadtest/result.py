"""What a load test saw, as values that processes send to each other and add up."""

from __future__ import annotations

from typing import Any

import msgspec

from trygon.loadtest.histogram import LatencyHistogram

__all__ = ["QUANTILES", "Report", "Result", "Second"]

#: Shown to people and written as JSON.
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_MANY = 0.01


class Second(msgspec.Struct):
    """What was answered, or failed, within one second of the run."""

    completed: int = 0
    failed: int = 0
    highest_us: int = 0


class Report(msgspec.Struct, kw_only=True):
    """Everything that one sender saw so far."""

    #: Answered with a status below 400.
    completed: int = 0
    #: By kind: 'timeout', 'connection refused', 'HTTP 503', ...
    failures: dict[str, int] = {}
    #: The first body or error text of each kind.
    examples: dict[str, str] = {}
    counts: dict[int, int] = {}
    highest_us: int = 0
    received_bytes: int = 0
    connections: int = 0
    in_flight: int = 0
    #: By second after the begin of what is counted.
    seconds: dict[int, Second] = {}
    #: Of an open loop: requests, and how many of them left late by the sender's own fault.
    sent: int = 0
    sent_late: int = 0
    #: Processor time for each second of the run.
    busy_share: float = 0.0
    #: Seconds that are counted so far.
    elapsed_s: float = 0.0
    is_final: bool = False


class Result:
    """The reports of all senders together.

    Args:
        reports: The last of each.
    """

    def __init__(self, reports: list[Report]) -> None:
        self.latencies = LatencyHistogram()
        self.failures: dict[str, int] = {}
        self.examples: dict[str, str] = {}
        self.seconds: dict[int, Second] = {}
        for report in reports:
            self.latencies.merge(LatencyHistogram(report.counts, report.highest_us))
            for kind, count in report.failures.items():
                self.failures[kind] = self.failures.get(kind, 0) + count
            self.examples = {**report.examples, **self.examples}
            for number, found in report.seconds.items():
                second = self.seconds.setdefault(number, Second())
                second.completed += found.completed
                second.failed += found.failed
                second.highest_us = max(second.highest_us, found.highest_us)
        self.num_completed = sum(report.completed for report in reports)
        self.num_failed = sum(self.failures.values())
        self.received_bytes = sum(report.received_bytes for report in reports)
        self.connections = sum(report.connections for report in reports)
        self.in_flight = sum(report.in_flight for report in reports)
        self.elapsed_s = max((report.elapsed_s for report in reports), default=0.0)
        sent = sum(report.sent for report in reports)
        #: Share of the requests that left late by the sender's own fault.
        self.late_share = sum(report.sent_late for report in reports) / sent if sent else 0.0
        #: Of the busiest sender.
        self.busy_share = max((report.busy_share for report in reports), default=0.0)

    @property
    def num_requests(self) -> int:
        """Requests that ended, well or not."""
        return self.num_completed + self.num_failed

    @property
    def rps(self) -> float:
        """Good answers a second."""
        return self.num_completed / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def error_share(self) -> float:
        """Share of the requests that failed."""
        return self.num_failed / self.num_requests if self.num_requests else 0.0

    @property
    def is_own_limit(self) -> bool:
        """Whether the sender, and not the service, may have been what was measured."""
        return self.late_share > _MANY or self.busy_share > 1 - 10 * _MANY

    def to_builtins(self) -> dict[str, Any]:
        """Return everything as JSON values; times in seconds."""
        latencies = self.latencies
        return {
            "requests": self.num_requests,
            "completed": self.num_completed,
            "failed": self.num_failed,
            "error_share": self.error_share,
            "elapsed_s": self.elapsed_s,
            "requests_per_s": self.rps,
            "received_bytes": self.received_bytes,
            "connections": self.connections,
            "latency_s": {
                "mean": latencies.mean_s,
                **{f"p{share * 100:g}": latencies.quantile(share) for share in QUANTILES},
                "max": latencies.highest_s,
            },
            "failures": {
                kind: {"count": count, "example": self.examples.get(kind, "")}
                for kind, count in sorted(self.failures.items(), key=lambda each: -each[1])
            },
            "sender": {
                "late_share": self.late_share,
                "busy_share": self.busy_share,
                "was_limit": self.is_own_limit,
            },
            "seconds": [
                {
                    "second": number,
                    "completed": second.completed,
                    "failed": second.failed,
                    "max_latency_s": second.highest_us / 1e6,
                }
                for number, second in sorted(self.seconds.items())
            ],
        }
