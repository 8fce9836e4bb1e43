"""A handle call from a script against a pipe ping-pong between two processes, in the same run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.errors import Unavailable
from bench.scenarios.base import Outcome, Settings, chosen, describe, median_of, say, warn_if_busy
from bench.stats import percentile
from bench.systems import ray, run_to_end, trygon
from bench.table import Check, Report

__all__ = ["run_handle"]


@dataclass(frozen=True)
class _Times:
    handle_s: float
    handle_p99_s: float
    pipe_s: float
    cancel_s: float
    cancel_error: str

    @property
    def ratio(self) -> float:
        return self.handle_s / self.pipe_s


def run_handle(settings: Settings) -> Report:
    """Time sequential ``.remote().result()`` calls of one script."""
    calls = 500 if settings.is_quick else 5000
    arguments = ["--calls", str(calls)]
    systems = [trygon("trygon", "serve_handle.py", arguments=arguments)]
    if settings.with_peers:
        systems.append(ray("ray", "serve_handle.py", arguments=arguments))
    columns = (
        "system",
        "handle p50 us",
        "handle p99 us",
        "pipe p50 us",
        "handle / pipe",
        "cancel ms",
        "cancel raises",
    )
    report = Report("handle", f"{calls} sequential handle calls from a script", columns)
    outcomes: list[Outcome[_Times]] = [Outcome(system) for system in chosen(systems, settings)]
    for number in range(settings.rounds):
        for outcome in outcomes:
            if outcome.reason:
                continue
            warn_if_busy(report)
            say(f"handle: round {number + 1} of {settings.rounds}: {outcome.system.name}")
            try:
                found = run_to_end(outcome.system, timeout_s=300)
            except Unavailable as error:
                outcome.reason = str(error)
                say(f"{outcome.system.name}: {error}")
                continue
            describe(report, outcome.system)
            outcome.results.append(
                _Times(
                    statistics.median(found["handle_s"]),
                    percentile(found["handle_s"], 0.99),
                    statistics.median(found["pipe_s"]),
                    found["cancel_s"],
                    found["cancel_error"],
                )
            )
    for outcome in outcomes:
        _add_row(report, outcome)
    report.notes.append(
        "pipe: multiprocessing.Pipe ping-pong of the same value with another process, in alternating blocks"
    )
    report.notes.append(
        "cancel: from cancel() of a call whose plain method blocks for 5 s to the error at the caller"
    )
    return report


def _add_row(report: Report, outcome: Outcome[_Times]) -> None:
    name = outcome.system.name
    if not outcome.results:
        report.add_missing(name, outcome.reason)
        return
    report.rows.append(
        [
            name,
            *(
                f"{(median_of(outcome, number) or 0) * 1e6:.0f}"
                for number in (lambda r: r.handle_s, lambda r: r.handle_p99_s, lambda r: r.pipe_s)
            ),
            f"{median_of(outcome, lambda times: times.ratio):.2f}",
            f"{(median_of(outcome, lambda times: times.cancel_s) or 0) * 1000:.1f}",
            outcome.results[-1].cancel_error,
        ]
    )
    for number, times in enumerate(outcome.results, 1):
        report.raw.append(
            f"{name} round {number}: handle {times.handle_s * 1e6:.1f} us, pipe {times.pipe_s * 1e6:.1f} us"
        )
    if name == "trygon":
        middle = median_of(outcome, lambda times: times.ratio) or 0.0
        report.checks.append(Check("p50 of a handle call / pipe ping-pong", middle, 5.0, is_floor=False))
