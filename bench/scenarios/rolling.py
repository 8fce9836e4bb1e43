"""Rolling updates, one after the other, under an open-loop load and at full closed-loop load."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.apps.serve_faults import Front, Worker
from bench.instance import running_instance
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.table import Check, Report
from bench.traffic import Seen, Traffic, closed_loop, half_capacity, mixed
from bench.wrk import WrkResult, require_wrk, wrk_version
from trygon import serve

__all__ = ["run_rolling"]

_PAUSE_S = 0.5
_COLUMNS = (
    "application",
    "offered/s",
    "updates",
    "median s",
    "slowest s",
    "sent",
    "failed",
    "connections lost",
    "worst second",
    "closed loop: updates",
    "answers/s",
    "errors",
)


def _plain(replicas: int) -> Callable[[int], Any]:
    return lambda label: Worker.options(num_replicas=replicas).bind(label)


def _composed(label: int) -> Any:
    return Front.options(num_replicas=2).bind(label, Worker.options(num_replicas=2).bind(label))


_APPLICATIONS: dict[str, Callable[[int], Any]] = {
    "1 replica": _plain(1),
    "2 replicas": _plain(2),
    "4 replicas": _plain(4),
    "composed, 2 and 2": _composed,
}


@dataclass(frozen=True)
class _Run:
    took_s: list[float]
    seen: Seen
    closed: WrkResult
    closed_updates: int
    num_mixed_versions: int


def run_rolling(settings: Settings) -> Report:
    """Update again and again, and tell what the clients saw."""
    require_wrk()
    report = Report("rolling", "Rolling updates under load, 1 ms of work and 5 ms of waiting each", _COLUMNS)
    report.venvs.append("main")
    report.commands.append("scripts/bench rolling")
    report.facts = [f"{_num_updates(settings)} updates in a row for each application, one run", wrk_version()]
    runs = []
    for name, make in _APPLICATIONS.items():
        warn_if_busy(report)
        say(f"rolling: {name}")
        run = _measure(make, settings)
        runs.append(run)
        report.rows.append(_row(name, run))
        report.raw.append(f"{name}: updates {[round(each, 3) for each in run.took_s]}, {run.closed}")
    report.checks += [
        Check("failed requests", sum(len(run.seen.failed) for run in runs), 0, is_floor=False),
        Check("connections lost", sum(run.seen.num_lost_connections for run in runs), 0, is_floor=False),
        Check("worst second, of the offered rate", min(run.seen.worst_second for run in runs), 0.6),
        Check("closed loop: errors", sum(run.closed.num_errors for run in runs), 0, is_floor=False),
        Check(
            "parents that met another version", sum(run.num_mixed_versions for run in runs), 0, is_floor=False
        ),
    ]
    report.notes += [
        "offered: half of what a closed loop gets through; one request in five on a new connection",
        "worst second: answers within the worst whole second, as a share of the offered rate",
        "an update is one serve.run with another argument, from the call to its return",
    ]
    return report


def _measure(make: Callable[[int], Any], settings: Settings) -> _Run:
    labels = itertools.count()
    with running_instance() as instance:
        serve.run(make(next(labels)))
        rps = half_capacity(instance.port, settings)
        with Traffic(instance.port, mixed(rps)) as traffic:
            took_s = []
            for _ in range(_num_updates(settings)):
                took_s.append(_update(make, labels))
                # The old replicas leave, so that each update begins with the same processes.
                time.sleep(_PAUSE_S)
            time.sleep(1.0)
        updates: list[float] = []
        closed = closed_loop(
            instance.port,
            settings.length_s(full=20, quick=2),
            lambda: updates.append(_update(make, labels)),
        )
    mixed_versions = sum('"same":false' in sample.body for sample in traffic.seen.samples)
    return _Run(took_s, traffic.seen, closed, len(updates), mixed_versions)


def _num_updates(settings: Settings) -> int:
    return 3 if settings.is_quick else 20


def _update(make: Callable[[int], Any], labels: Iterator[int]) -> float:
    begun = time.monotonic()
    serve.run(make(next(labels)))
    return time.monotonic() - begun


def _row(name: str, run: _Run) -> list[str]:
    return [
        name,
        f"{run.seen.rps:.0f}",
        str(len(run.took_s)),
        f"{statistics.median(run.took_s):.2f}",
        f"{max(run.took_s):.2f}",
        str(len(run.seen.samples)),
        run.seen.kinds,
        str(run.seen.num_lost_connections),
        f"{run.seen.worst_second:.0%}",
        str(run.closed_updates),
        f"{run.closed.requests_per_s:.0f}",
        str(run.closed.num_errors),
    ]
