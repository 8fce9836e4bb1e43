"""Ten times the load that a replica can take, and a tenant that floods beside one that does not."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench import load
from bench.apps.serve_overload import CAPACITY_RPS, SERVICE_S, app, fair_app
from bench.instance import Instance, running_instance
from bench.load import Sample, Target
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.stats import percentile
from bench.table import Check, Report
from bench.traffic import words
from bench.usage import slope_per_minute, usage_of
from trygon import serve

__all__ = ["run_overload"]

#: What the ingress lets wait by default.
_WAIT_S = 1.0
_QUIET_S = 10.0
_COLUMNS = ("phase", "offered/s", "answered/s", "p50 ms", "p99 ms", "others", "p99 ms of those")
#: One percent of what is offered.
_SMALL = Target("small", "/", CAPACITY_RPS / 10, header="X-Tenant: small")
_MB = 1 << 20


def run_overload(settings: Settings) -> Report:
    """Measure the peak, flood, look at the time after it; then the same with tenants."""
    report = Report("overload", "Ten times the capacity of one replica, with the defaults", _COLUMNS)
    report.venvs.append("main")
    report.commands.append("scripts/bench overload")
    warn_if_busy(report)
    flood_s = settings.length_s(full=60, quick=8)
    quiet_s = min(_QUIET_S, flood_s)
    report.facts = [f"{flood_s:g} s of flood, one run; a handler that awaits 20 ms, 5 requests at a time"]
    with running_instance() as instance:
        serve.run(app)
        say("overload: peak")
        peak = _send(instance, [Target("peak", "/", 1.5 * CAPACITY_RPS)], quiet_s)
        say("overload: ten times the capacity")
        with _Memory(instance) as memory:
            flood = _send(
                instance,
                [Target("flood", "/", 10 * CAPACITY_RPS)],
                flood_s,
            )
        say("overload: after")
        after = _send(instance, [Target("after", "/", 0.2 * CAPACITY_RPS)], max(4.0, quiet_s / 2))
        say("overload: tenants")
        serve.run(fair_app)
        quiet = _send(instance, [_SMALL], quiet_s)
        tenants = _send(
            instance, [_SMALL, Target("big", "/", 9.9 * CAPACITY_RPS, header="X-Tenant: big")], flood_s / 2
        )
    _report_flood(report, peak, flood, after)
    report.checks.append(
        Check("growth of the ingress in the flood", memory.growth_mb(), 5.0, "MB/min", is_floor=False)
    )
    _report_tenants(report, quiet, tenants)
    report.notes += [
        "open loop: requests leave on time whatever the server does; Retry-After is asked of every refusal",
        f"bound of admitted requests: 2 times {SERVICE_S * 1000:g} ms and {_WAIT_S:g} s, the default bound of the queue",
    ]
    return report


def _send(instance: Instance, targets: Sequence[Target], seconds: float) -> list[Sample]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return load.finish(load.begin(instance.port, targets, seconds, Path(folder)))


def _rate(samples: Sequence[Sample]) -> float:
    """Return answers a second, without the first second and what came after the last request."""
    first, last = min(s.at for s in samples) + 1, max(s.at for s in samples)
    return sum(first <= s.ended_at < last for s in samples if s.is_good) / (last - first)


def _p99_ms(samples: Sequence[Sample]) -> float:
    return 1000 * percentile([sample.latency_s for sample in samples], 0.99)


def _add_row(report: Report, phase: str, samples: Sequence[Sample]) -> None:
    good = [sample for sample in samples if sample.is_good]
    others = [sample for sample in samples if not sample.is_good]
    offered = len(samples) / (max(s.at for s in samples) - min(s.at for s in samples))
    p50 = 1000 * percentile([sample.latency_s for sample in good], 0.5)
    report.rows.append(
        [
            phase,
            f"{offered:.0f}",
            f"{_rate(samples):.1f}",
            f"{p50:.1f}",
            f"{_p99_ms(good):.1f}",
            words(Counter(sample.outcome for sample in others)),
            f"{_p99_ms(others):.1f}" if others else "-",
        ]
    )


def _report_flood(
    report: Report, peak: Sequence[Sample], flood: Sequence[Sample], after: Sequence[Sample]
) -> None:
    for phase, samples in (("peak", peak), ("ten times", flood), ("after", after)):
        _add_row(report, phase, samples)
    admitted = [sample for sample in flood if sample.is_good]
    refused = [sample for sample in flood if sample.outcome == "503"]
    silent = sum(sample.retry_after is None or int(sample.retry_after) < 1 for sample in refused)
    begun = min(sample.at for sample in after)
    late = [sample for sample in after if sample.at > begun + 2]
    bound_ms = 1000 * (2 * SERVICE_S + _WAIT_S)
    report.checks += [
        Check("goodput as a share of the peak", _rate(flood) / _rate(peak), 0.95),
        Check("p99 of admitted requests", _p99_ms(admitted), bound_ms, "ms", is_floor=False),
        Check("p99 of refusals", _p99_ms(refused), 20.0, "ms", is_floor=False),
        Check("refusals without Retry-After", silent, 0, is_floor=False),
        Check("neither answered nor refused", len(flood) - len(admitted) - len(refused), 0, is_floor=False),
        Check("failed 2 s after the flood and later", sum(not s.is_good for s in late), 0, is_floor=False),
        Check("p99 2 s after the flood and later", _p99_ms(late), 2000 * SERVICE_S, "ms", is_floor=False),
    ]


def _report_tenants(report: Report, quiet: Sequence[Sample], tenants: Sequence[Sample]) -> None:
    small = [sample for sample in tenants if sample.target == "small"]
    _add_row(report, "small tenant alone", quiet)
    _add_row(report, "small tenant beside a flood", small)
    _add_row(report, "flooding tenant", [sample for sample in tenants if sample.target != "small"])
    bound_ms = 2 * _p99_ms(quiet) + 1000 * SERVICE_S
    report.checks += [
        Check("p99 of the small tenant beside a flood", _p99_ms(small), bound_ms, "ms", is_floor=False),
        Check(
            "requests of the small tenant that failed", sum(not s.is_good for s in small), 0, is_floor=False
        ),
    ]


class _Memory:
    """Looks at the memory of the ingress twice a second."""

    def __init__(self, instance: Instance) -> None:
        self._pid = instance.only("ingress")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._points: list[tuple[float, float]] = []

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def growth_mb(self) -> float:
        """Return the growth a minute, without the first third: connections are opened there."""
        return slope_per_minute(self._points[len(self._points) // 3 :]) / _MB

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            self._points.append((time.monotonic(), float(usage_of([self._pid]).rss_bytes)))
