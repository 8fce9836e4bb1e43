"""A random forest behind HTTP, one row a request: our batching, none, and that of MOSEC and LitServe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench import venvs
from bench.errors import BenchError
from bench.scenarios.base import Outcome, Settings, chosen, interleave, median_of
from bench.systems import APPS, Probe, Running, System, ray, trygon
from bench.table import Check, Report, ratio
from bench.wrk import WrkResult, require_wrk, run_wrk

__all__ = ["run_batching"]

COLUMNS = ("system", "req/s", "ratio", "p50 ms", "p99 ms", "p50 ms, 1 conn.", "errors")
_BASELINE = "trygon-single"
_CONNECTIONS = 64


@dataclass(frozen=True)
class _Pair:
    """What one round of one system gave."""

    many: WrkResult
    one: WrkResult


def run_batching(settings: Settings) -> Report:
    """Ask each system for the class of one wine a request, with 64 connections and with one."""
    require_wrk()
    rows = _rows()
    systems = [
        trygon("trygon", "serve_wine:batched", probe=_probe("/", rows)),
        trygon("trygon-auto", "serve_wine:tuned", probe=_probe("/", rows)),
        trygon(_BASELINE, "serve_wine:single", probe=_probe("/", rows)),
        System(name="mosec", venv="mosec", command=_mosec, probe=_probe("/inference", rows)),
        System(
            name="litserve",
            venv="litserve",
            command=_litserve,
            probe=_probe("/predict", rows),
            start_timeout_s=60,
        ),
    ]
    if settings.with_peers:
        systems.append(ray("ray", "serve_wine:batched", probe=_probe("/", rows)))
    report = Report("batching", "Random forest of 100 trees, one JSON row a request, 64 connections", COLUMNS)
    outcomes = interleave(
        chosen(systems, settings), report, settings, lambda running: _drive(running, settings, rows)
    )
    _fill(report, outcomes)
    report.notes += [
        "ratios are to trygon-single, which asks the model about each row by itself",
        "max_batch_size=64 and a wait of 10 ms everywhere, but for trygon-auto, whose wait tunes itself",
    ]
    _check(report, {outcome.system.name: outcome for outcome in outcomes})
    return report


def _rows() -> list[bytes]:
    """Return every wine of the data as the body of a request."""
    try:
        from sklearn.datasets import load_wine
    except ImportError as error:
        raise BenchError(f"{error}; pip install scikit-learn") from error
    return [json.dumps({"features": row}).encode() for row in load_wine(return_X_y=True)[0].tolist()]


def _probe(path: str, rows: list[bytes]) -> Probe:
    # The first wine of the data is of the first class.
    return Probe(path=path, body=rows[0], answer=0)


def _mosec(port: int) -> list[str | Path]:
    python = venvs.executable("mosec", "python")
    return [python, APPS / "mosec_wine.py", "--address", "127.0.0.1", "--port", str(port)]


def _litserve(port: int) -> list[str | Path]:
    return [venvs.executable("litserve", "python"), APPS / "litserve_wine.py", str(port)]


def _drive(running: Running, settings: Settings, rows: list[bytes]) -> _Pair:
    probe, port = running.system.probe, running.port
    warm_s, one_s = min(2.0, settings.duration_s / 2), settings.duration_s / 2
    run_wrk(port, probe, connections=_CONNECTIONS, duration_s=warm_s, bodies=rows)
    many = run_wrk(port, probe, connections=_CONNECTIONS, duration_s=settings.duration_s, bodies=rows)
    return _Pair(many, run_wrk(port, probe, connections=1, duration_s=one_s, bodies=rows))


def _fill(report: Report, outcomes: list[Outcome[_Pair]]) -> None:
    base = next((each for each in outcomes if each.system.name == _BASELINE), None)
    base_rate = median_of(base, _rate) if base else None
    for outcome in outcomes:
        name = outcome.system.name
        if not outcome.results:
            report.add_missing(name, outcome.reason)
            continue
        rate = median_of(outcome, _rate) or 0.0
        report.rows.append(
            [
                name,
                f"{rate:,.0f}",
                ratio(rate, base_rate),
                f"{median_of(outcome, lambda pair: pair.many.p50_ms):.2f}",
                f"{median_of(outcome, _p99):.2f}",
                f"{median_of(outcome, lambda pair: pair.one.p50_ms):.2f}",
                str(sum(pair.many.num_errors + pair.one.num_errors for pair in outcome.results)),
            ]
        )
        report.raw += [
            f"{name} round {number}: 64 connections {pair.many.requests_per_s:.0f} req/s, "
            f"p50 {pair.many.p50_ms:.3f} ms, p99 {pair.many.p99_ms:.3f} ms; 1 connection p50 {pair.one.p50_ms:.3f} ms"
            for number, pair in enumerate(outcome.results, 1)
        ]
    first = next((outcome.results[0] for outcome in outcomes if outcome.results), None)
    if first is not None:
        report.commands += [first.many.command, first.one.command]


def _rate(pair: _Pair) -> float:
    return pair.many.requests_per_s


def _p99(pair: _Pair) -> float:
    return pair.many.p99_ms


def _check(report: Report, by_name: dict[str, Outcome[_Pair]]) -> None:
    for base, bound in ((_BASELINE, 15.0), ("mosec", 1.0), ("litserve", 5.0)):
        if "trygon" not in by_name or base not in by_name:
            continue
        ours, theirs = by_name["trygon"], by_name[base]
        rates = median_of(ours, _rate), median_of(theirs, _rate)
        if rates[0] and rates[1]:
            report.checks.append(Check(f"req/s of trygon / {base}", rates[0] / rates[1], bound))
        tails = median_of(ours, _p99), median_of(theirs, _p99)
        if tails[0] and tails[1]:
            check = Check(f"p99 of trygon / {base}", tails[0] / tails[1], 1.0, is_floor=False)
            report.checks.append(check)
