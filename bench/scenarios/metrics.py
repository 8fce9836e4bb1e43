"""What counting costs: the echo with all metrics, without stages of requests, and with none at all."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from statistics import median

from bench.scenarios.base import Outcome, Settings, chosen, interleave
from bench.systems import Running, trygon
from bench.table import Check, Report, ratio
from bench.usage import cpu_s
from bench.wrk import WrkResult, require_wrk, run_wrk

__all__ = ["run_metrics"]

_OFF = "off"
_COLUMNS = ("metrics", "req/s", "ratio", "p99 ms", "processor us/request", "ratio")
#: Of the throughput of the core, which all metrics together may cost.
_MOST_COST = 0.05


@dataclass(frozen=True)
class _Load:
    """One round: what the client saw, and what all processes of the instance used meanwhile."""

    seen: WrkResult
    cpu_us: float


def run_metrics(settings: Settings) -> Report:
    """Compare rounds of the same moment, so that what else the machine does concerns both alike.

    Processor time a request is looked at too: others on the machine change it least.
    """
    require_wrk()
    report = Report("metrics", "JSON echo with metrics on, basic (no stages) and off", _COLUMNS)
    systems = [
        trygon(level, "serve_echo:echo", env={"TRYGON_METRICS": level}) for level in ("on", "basic", _OFF)
    ]
    outcomes = interleave(
        chosen(systems, settings), report, settings, lambda running: _drive(running, settings)
    )
    by_name = {outcome.system.name: outcome for outcome in outcomes if outcome.results}
    for outcome in outcomes:
        _add_rows(report, outcome, by_name.get(_OFF))
    for level in ("on", "basic"):
        if level in by_name and _OFF in by_name:
            _check(report, level, by_name[level], by_name[_OFF])
    report.notes.append("metrics are switched with TRYGON_METRICS; ratios are medians of paired rounds")
    report.notes.append("processor time is that of all processes of the instance, without the client")
    return report


def _drive(running: Running, settings: Settings) -> _Load:
    probe = running.system.probe
    run_wrk(running.port, probe, connections=64, duration_s=min(1.0, settings.duration_s / 2))
    before = _cpu_s(running)
    seen = run_wrk(running.port, probe, connections=64, duration_s=settings.duration_s)
    used_s = _cpu_s(running) - before
    return _Load(seen, 1e6 * used_s / (seen.requests_per_s * settings.duration_s))


def _cpu_s(running: Running) -> float:
    total = 0.0
    for pid in running.child.pids():
        with contextlib.suppress(OSError):
            total += cpu_s(pid)
    return total


def _add_rows(report: Report, outcome: Outcome[_Load], off: Outcome[_Load] | None) -> None:
    name = outcome.system.name
    if not outcome.results:
        report.add_missing(name, outcome.reason)
        return
    rates, costs = _ratios(outcome, off) if off is not None else ([], [])
    report.rows.append(
        [
            name,
            f"{median(load.seen.requests_per_s for load in outcome.results):,.0f}",
            ratio(median(rates), 1.0) if rates else "",
            f"{median(load.seen.p99_ms for load in outcome.results):.2f}",
            f"{median(load.cpu_us for load in outcome.results):.1f}",
            ratio(median(costs), 1.0) if costs else "",
        ]
    )
    report.raw += [
        f"{name} round {number}: {load.seen.requests_per_s:.0f} req/s, {load.cpu_us:.1f} us/request"
        for number, load in enumerate(outcome.results, 1)
    ]


def _ratios(outcome: Outcome[_Load], off: Outcome[_Load]) -> tuple[list[float], list[float]]:
    """Return throughput and processor time of each round, relative to the same round without metrics."""
    pairs = list(zip(outcome.results, off.results, strict=False))
    rates = [counted.seen.requests_per_s / plain.seen.requests_per_s for counted, plain in pairs]
    return rates, [counted.cpu_us / plain.cpu_us for counted, plain in pairs]


def _check(report: Report, level: str, outcome: Outcome[_Load], off: Outcome[_Load]) -> None:
    rates, costs = _ratios(outcome, off)
    report.checks.append(Check(f"req/s with metrics {level} / off, paired", median(rates), 1 - _MOST_COST))
    report.checks.append(
        Check(
            f"processor time a request with metrics {level} / off, paired",
            median(costs),
            1 / (1 - _MOST_COST),
            is_floor=False,
        )
    )
