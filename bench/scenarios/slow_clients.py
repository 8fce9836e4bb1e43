"""Thousands of slow clients, and what the others notice of them."""

from __future__ import annotations

import resource
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import load, slow
from bench.errors import BenchError
from bench.load import Sample, Target
from bench.scenarios.base import Outcome, Settings, chosen, interleave, median_of
from bench.slow import Fate
from bench.stats import percentile
from bench.systems import Probe, Running, ray, trygon
from bench.table import Check, Report

__all__ = ["run_slow_clients"]

#: Most requests on kept connections, some on new ones: these must get past the crowd at the door.
_TARGETS = (Target("kept", "/", 900), Target("new", "/", 100, is_fresh=True))


@dataclass(frozen=True)
class _Round:
    quiet: list[Sample]
    during: list[Sample]
    fates: list[Fate]
    pss_quiet_bytes: int
    pss_during_bytes: int

    def p99_ms(self, samples: Sequence[Sample], target: str = "") -> float:
        """Return the p99 of all, or of one target; what failed counts as the time-out."""
        return percentile(
            [
                s.latency_s * 1000 if s.is_good else load.TIMEOUT_S * 1000
                for s in samples
                if target in ("", s.target)
            ],
            0.99,
        )


def run_slow_clients(settings: Settings) -> Report:
    """Send 1,000 requests/s quiet, then with the crowd there."""
    count = 3000 if settings.is_quick else 10_000
    # Each side holds one end of every slow connection, and some for the sender.
    _raise_limit(count + 4096)
    probe = Probe("/", "GET", b"", None)
    systems = [trygon("trygon", "serve_slow_clients:app", probe=probe)]
    if settings.with_peers:
        systems += [
            ray("ray", "serve_slow_clients:app", probe=probe),
            ray("ray-tuned", "serve_slow_clients:app", probe=probe, is_tuned=True),
        ]
    columns = (
        "system",
        "p99 ms quiet",
        "p99 ms during",
        "new connections, during",
        "failed",
        "PSS growth MB",
    )
    title = f"{count:,} slow clients (half headers, half bodies, slow readers), others at 1,000 requests/s"
    report = Report(
        "slow-clients", title, (*columns, "half headers closed", "half bodies closed", "readers closed")
    )
    for outcome in interleave(
        chosen(systems, settings), report, settings, lambda r: _measure(r, settings, count)
    ):
        if not outcome.results:
            report.add_missing(outcome.system.name, outcome.reason)
            continue
        _add_row(report, outcome)
    report.notes += [
        "max_ongoing_requests=5; one in ten of the others opens a new connection",
        "closed: share of the clients, and median and last seconds from connection to close, last round",
        "half of the unfinished clients are silent, half send a byte every 4 s; readers take a byte every 4 s of 128 KiB",
        "a request without an answer of 200 counts as 10 s",
    ]
    return report


def _raise_limit(wanted: int) -> None:
    """Allow that many open files, to us and to what we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError) as error:
        raise BenchError(
            f"{wanted} open files are needed and the limit is {hard}; raise it: ulimit -n {wanted}"
        ) from error


def _measure(running: Running, settings: Settings, count: int) -> _Round:
    seconds = max(5.0, settings.duration_s)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # A first short run, so that both phases find a warm server.
        load.finish(load.begin(running.port, _TARGETS, 1.0, Path(folder)))
        quiet = load.finish(load.begin(running.port, _TARGETS, seconds, Path(folder)))
        pss_quiet = running.child.pss_bytes()
        # From the last connection on: longer than the 10 s that an unfinished request may take, by some.
        crowd_s = 18.0
        crowd, output = slow.begin(running.port, count, crowd_s, Path(folder))
        during = load.finish(load.begin(running.port, _TARGETS, min(seconds, 8.0), Path(folder)))
        pss_during = running.child.pss_bytes()
        fates = slow.finish(crowd, output, crowd_s + 30)
    return _Round(quiet, during, fates, pss_quiet, pss_during)


def _closed(fates: Sequence[Fate], kind: str) -> str:
    all_of_kind = [fate for fate in fates if fate.kind == kind]
    times = [
        fate.closed_after_s
        for fate in all_of_kind
        if fate.closed_after_s is not None and not fate.was_refused
    ]
    if not times:
        return "none"
    share = len(times) / len(all_of_kind)
    return f"{share:.0%}, {statistics.median(times):.1f} s, {max(times):.1f} s"


def _add_row(report: Report, outcome: Outcome[_Round]) -> None:
    name, last = outcome.system.name, outcome.results[-1]
    quiet = median_of(outcome, lambda r: r.p99_ms(r.quiet)) or 0.0
    during = median_of(outcome, lambda r: r.p99_ms(r.during)) or 0.0
    new = median_of(outcome, lambda r: r.p99_ms(r.during, "new")) or 0.0
    failed = max(sum(not sample.is_good for sample in r.during) for r in outcome.results)
    growth_mb = max(r.pss_during_bytes - r.pss_quiet_bytes for r in outcome.results) / 1e6
    cells = [f"{quiet:.2f}", f"{during:.2f}", f"{new:.2f}", str(failed), f"{growth_mb:.0f}"]
    report.rows.append([name, *cells, *(_closed(last.fates, kind) for kind in slow.KINDS)])
    refused = max(sum(fate.was_refused for fate in r.fates) for r in outcome.results)
    if refused:
        report.notes.append(f"{name}: {refused} of the slow clients were refused, worst round")
    for number, each in enumerate(outcome.results, 1):
        ages = (each.p99_ms(each.quiet), each.p99_ms(each.during))
        report.raw.append(f"{name} round {number}: p99 quiet {ages[0]:.2f} ms, during {ages[1]:.2f} ms")
    if name == "trygon":
        bound = max(2 * quiet, 10.0)
        report.checks.append(Check("p99 of the others during", during, bound, "ms", is_floor=False))
        for kind in ("headers", "body"):
            last_s = max(
                (f.closed_after_s or float("inf")) for r in outcome.results for f in r.fates if f.kind == kind
            )
            report.checks.append(
                Check(f"half {kind}: last one closed after", last_s, 13.0, "s", is_floor=False)
            )
