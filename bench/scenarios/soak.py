"""Minutes of load with an update every 20 s: does anything grow?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from bench.apps.serve_faults import Worker
from bench.instance import Instance, running_instance
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.table import Check, Report
from bench.traffic import Traffic, half_capacity, mixed
from bench.usage import Usage, slope_per_minute, usage_of
from bench.wrk import require_wrk, wrk_version
from trygon import serve

__all__ = ["run_soak"]

_REPLICAS = 2
_KINDS = ("controller", "ingress", "replica", "supervisor")
_MIB = 1024**2
#: What may be growth: ten minutes of it are 5 MiB, below what an allocator's arenas come and go by.
_MAX_SLOPE_MIB = 0.5
#: In a shorter run the filling of caches is all there is to see.
_MIN_JUDGED_S = 120.0
#: Imports, caches and arenas fill up at first; growth is judged after it.
_WARM_SHARE = 0.25
_COLUMNS = (
    "process",
    "PSS at first MiB",
    "PSS at last MiB",
    "PSS slope MiB/min",
    "RSS slope MiB/min",
    "descriptors, first to last",
    "processes, first to last",
)


def run_soak(settings: Settings) -> Report:
    """Send and update, and look at every process again and again."""
    require_wrk()
    length_s = settings.length_s(full=600, quick=15)
    every_s = min(20.0, length_s / 5)
    report = Report("soak", f"{length_s:.0f} s at half load with an update every {every_s:g} s", _COLUMNS)
    report.venvs.append("main")
    report.commands.append("scripts/bench soak")
    report.facts = [f"{length_s:g} s with an update every {every_s:g} s, one run", wrk_version()]
    warn_if_busy(report)
    say(f"soak: {length_s:.0f} s")
    with running_instance() as instance:
        serve.run(Worker.options(num_replicas=_REPLICAS).bind(0))
        rps = half_capacity(instance.port, settings)
        before = _look(instance)
        with Traffic(instance.port, mixed(rps, with_posts=True)) as traffic:
            rows = _updates(instance, length_s, every_s)
        # The clients have gone: what is open now and was not before has leaked.
        after = _settled(instance, before)
    seen = traffic.seen
    for kind in _KINDS:
        report.rows.append(_row(kind, rows, before, after))
    first = rows[0][0]
    warm = [(at, usage) for at, usage in rows if at - first >= _WARM_SHARE * (rows[-1][0] - first)]
    if length_s >= _MIN_JUDGED_S:
        for kind in ("controller", "ingress", "replica"):
            slope = slope_per_minute([(at, usage[kind].pss_bytes / _MIB) for at, usage in warm])
            report.checks.append(
                Check(f"{kind}: PSS grows a minute by", slope, _MAX_SLOPE_MIB, "MiB", is_floor=False)
            )
    else:
        report.notes.append(f"growth is not judged in less than {_MIN_JUDGED_S:g} s")
    leaked = sum(max(0, after[kind].num_descriptors - before[kind].num_descriptors) for kind in _KINDS)
    left = sum(after[kind].num_processes - before[kind].num_processes for kind in _KINDS)
    report.checks += [
        Check("descriptors more than at first", leaked, 0, is_floor=False),
        Check("processes more than at first", left, 0, is_floor=False),
        Check("failed requests", len(seen.failed), 0, is_floor=False),
        Check("worst second, of the offered rate", seen.worst_second, 0.6),
    ]
    report.notes += [
        f"{len(seen.samples)} requests, {seen.rps:.0f} a second, failed: {seen.kinds}",
        f"{_REPLICAS} replicas together; each update replaces them, so theirs is the growth from one revision to the next",
        f"slopes are over the last {1 - _WARM_SHARE:.0%} of the run; first and last are idle, before and after the load",
    ]
    report.raw += [_raw(at - first, usage) for at, usage in rows]
    return report


def _look(instance: Instance) -> dict[str, Usage]:
    found = {kind: usage_of(instance.pids(kind)) for kind in _KINDS if kind != "supervisor"}
    return {**found, "supervisor": usage_of({instance.supervisor})}


def _updates(instance: Instance, length_s: float, every_s: float) -> list[tuple[float, dict[str, Usage]]]:
    """Update every so often, and look in the middle between two updates, when only one revision runs."""
    rows: list[tuple[float, dict[str, Usage]]] = []
    begun = time.monotonic()
    for number in itertools.count(1):
        at = begun + number * every_s
        if at > begun + length_s:
            return rows
        time.sleep(max(0.0, at - every_s / 2 - time.monotonic()))
        rows.append((time.monotonic(), _look(instance)))
        time.sleep(max(0.0, at - time.monotonic()))
        serve.run(Worker.options(num_replicas=_REPLICAS).bind(number))
    return rows


def _settled(instance: Instance, before: dict[str, Usage]) -> dict[str, Usage]:
    """Look when the last connections are closed, or after 10 s."""
    deadline = time.monotonic() + 10
    while True:
        after = _look(instance)
        if time.monotonic() > deadline or all(
            after[kind].num_descriptors <= before[kind].num_descriptors
            and after[kind].num_processes <= before[kind].num_processes
            for kind in _KINDS
        ):
            return after
        time.sleep(0.2)


def _row(
    kind: str,
    rows: Sequence[tuple[float, dict[str, Usage]]],
    before: dict[str, Usage],
    after: dict[str, Usage],
) -> list[str]:
    first = rows[0][0]
    warm = [(at, usage[kind]) for at, usage in rows if at - first >= _WARM_SHARE * (rows[-1][0] - first)]
    pss = slope_per_minute([(at, usage.pss_bytes / _MIB) for at, usage in warm])
    rss = slope_per_minute([(at, usage.rss_bytes / _MIB) for at, usage in warm])
    return [
        kind,
        f"{before[kind].pss_bytes / _MIB:.1f}",
        f"{after[kind].pss_bytes / _MIB:.1f}",
        f"{pss:+.2f}",
        f"{rss:+.2f}",
        f"{before[kind].num_descriptors} to {after[kind].num_descriptors}",
        f"{before[kind].num_processes} to {after[kind].num_processes}",
    ]


def _raw(at_s: float, usage: dict[str, Usage]) -> str:
    parts = [
        f"{kind} PSS {each.pss_bytes / _MIB:.1f} RSS {each.rss_bytes / _MIB:.1f} fds {each.num_descriptors}"
        for kind, each in usage.items()
    ]
    return f"{at_s:.0f} s: {'; '.join(parts)}"
