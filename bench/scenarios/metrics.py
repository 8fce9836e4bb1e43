"""What counting costs: the echo with all metrics, without stages of requests, and with none at all."""

from __future__ import annotations

from statistics import median

from bench.scenarios.base import Outcome, Settings, chosen, interleave
from bench.scenarios.echo import COLUMNS, Pair, drive, wrk_rows
from bench.systems import trygon
from bench.table import Check, Report
from bench.wrk import require_wrk

__all__ = ["run_metrics"]

_OFF = "off"
#: Of the throughput of the core, which all metrics together may cost.
_MOST_COST = 0.05


def run_metrics(settings: Settings) -> Report:
    """Compare rounds of the same moment, so that what else the machine does concerns both alike."""
    require_wrk()
    report = Report("metrics", "JSON echo with metrics on, basic (no stages) and off", COLUMNS)
    systems = [
        trygon(level, "serve_echo:echo", env={"TRYGON_METRICS": level}) for level in ("on", "basic", _OFF)
    ]
    outcomes = interleave(
        chosen(systems, settings), report, settings, lambda running: drive(running, settings)
    )
    wrk_rows(report, outcomes, baseline=_OFF)
    by_name = {outcome.system.name: outcome for outcome in outcomes}
    for level in ("on", "basic"):
        if level in by_name and _OFF in by_name:
            _check(report, level, by_name[level], by_name[_OFF])
    report.notes.append(
        "ratios are to the same program with TRYGON_METRICS=off; a check is the median of paired rounds"
    )
    return report


def _check(report: Report, level: str, outcome: Outcome[Pair], off: Outcome[Pair]) -> None:
    ratios = [
        counted.many.requests_per_s / plain.many.requests_per_s
        for counted, plain in zip(outcome.results, off.results, strict=False)
    ]
    if ratios:
        what = f"req/s with metrics {level} / off, paired"
        report.checks.append(Check(what, median(ratios), 1 - _MOST_COST))
