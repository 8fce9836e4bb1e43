"""What counting costs: the echo with all metrics, without stages of requests, and with none at all."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from statistics import median

from bench.scenarios.base import Settings, chosen, describe, say, warn_if_busy
from bench.systems import Running, start, trygon
from bench.table import Check, Report, ratio
from bench.usage import cpu_s
from bench.wrk import WrkResult, require_wrk, run_wrk

__all__ = ["run_metrics"]

_OFF = "off"
_COLUMNS = ("metrics", "req/s", "ratio", "p99 ms", "processor us/request", "ratio")
#: Of the throughput of the core, which all metrics together may cost.
_MOST_COST = 0.05
#: Short beside the drift of a machine; a second is some 30,000 requests, and 1 % of it one tick of processor time.
_TURN_S = 1.0


@dataclass(frozen=True)
class _Load:
    """One turn: what the client saw, and what all processes of the instance used meanwhile."""

    seen: WrkResult
    cpu_us: float


def run_metrics(settings: Settings) -> Report:
    """Let the systems run beside each other and load them in turn, a second each.

    What counting costs is less than what a machine's speed changes by within seconds, and than what two starts of
    one program differ by. So the turns are short, every ratio is of neighbours in time, and each round starts anew.
    """
    require_wrk()
    report = Report("metrics", "JSON echo with metrics on, basic (no stages) and off", _COLUMNS)
    systems = chosen(
        [trygon(level, "serve_echo:echo", env={"TRYGON_METRICS": level}) for level in ("on", "basic", _OFF)],
        settings,
    )
    loads: dict[str, list[_Load]] = {system.name: [] for system in systems}
    for number in range(settings.rounds):
        warn_if_busy(report)
        say(f"{report.name}: round {number + 1} of {settings.rounds}")
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(start(system)) for system in systems]
            _take_turns(running, loads, settings)
    for system in systems:
        describe(report, system)
        _add_rows(report, system.name, loads)
    for level in ("on", "basic"):
        if level in loads and _OFF in loads:
            _check(report, level, loads)
    report.notes += [
        "metrics are switched with TRYGON_METRICS; ratios are medians over the turns, each against the same turn's off",
        "the instances run beside each other and are loaded in turn; each round starts them anew",
        "processor time is that of all processes of the instance, without the client",
    ]
    return report


def _take_turns(running: list[Running], loads: dict[str, list[_Load]], settings: Settings) -> None:
    turn_s = min(_TURN_S, settings.duration_s)
    for each in running:
        run_wrk(each.port, each.system.probe, connections=64, duration_s=turn_s)
    for turn in range(max(1, round(settings.duration_s / turn_s))):
        # Whoever comes first in one turn is last in the next: the place must not favour anybody.
        first = turn % len(running)
        for each in running[first:] + running[:first]:
            loads[each.system.name].append(_drive(each, turn_s))


def _drive(running: Running, turn_s: float) -> _Load:
    before = _cpu_s(running)
    seen = run_wrk(running.port, running.system.probe, connections=64, duration_s=turn_s)
    used_s = _cpu_s(running) - before
    return _Load(seen, 1e6 * used_s / (seen.requests_per_s * turn_s))


def _cpu_s(running: Running) -> float:
    total = 0.0
    for pid in running.child.pids():
        with contextlib.suppress(OSError):
            total += cpu_s(pid)
    return total


def _add_rows(report: Report, name: str, loads: dict[str, list[_Load]]) -> None:
    rates, costs = _ratios(loads[name], loads[_OFF]) if _OFF in loads else ([], [])
    report.rows.append(
        [
            name,
            f"{median(load.seen.requests_per_s for load in loads[name]):,.0f}",
            ratio(median(rates), 1.0) if rates else "",
            f"{median(load.seen.p99_ms for load in loads[name]):.2f}",
            f"{median(load.cpu_us for load in loads[name]):.1f}",
            ratio(median(costs), 1.0) if costs else "",
        ]
    )
    report.raw += [
        f"{name} turn {number}: {load.seen.requests_per_s:.0f} req/s, {load.cpu_us:.1f} us/request"
        for number, load in enumerate(loads[name], 1)
    ]


def _ratios(counted: list[_Load], plain: list[_Load]) -> tuple[list[float], list[float]]:
    """Return throughput and processor time of each turn, relative to the same turn without metrics."""
    pairs = list(zip(counted, plain, strict=True))
    rates = [one.seen.requests_per_s / other.seen.requests_per_s for one, other in pairs]
    return rates, [one.cpu_us / other.cpu_us for one, other in pairs]


def _check(report: Report, level: str, loads: dict[str, list[_Load]]) -> None:
    rates, costs = _ratios(loads[level], loads[_OFF])
    report.checks.append(Check(f"req/s with metrics {level} / off, paired", median(rates), 1 - _MOST_COST))
    report.checks.append(
        Check(
            f"processor time a request with metrics {level} / off, paired",
            median(costs),
            1 / (1 - _MOST_COST),
            is_floor=False,
        )
    )
