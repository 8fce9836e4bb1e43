"""JSON echo: requests a second with 64 connections and p50 with one, against bare web servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.scenarios.base import Outcome, Settings, chosen, interleave, median_of
from bench.systems import PEERS, Running, ray, trygon, uvicorn
from bench.table import Check, Report, ratio
from bench.wrk import WrkResult, require_wrk, run_wrk

__all__ = ["Pair", "drive", "run_chain", "run_echo", "run_echo_log", "wrk_rows"]

COLUMNS = (
    "system",
    "req/s",
    "ratio",
    "p50 ms",
    "p99 ms",
    "p50 ms, 1 conn.",
    "ratio",
    "errors",
    "start s",
    "PSS MB",
)
_BASELINE = "starlette"


@dataclass(frozen=True)
class Pair:
    """What one round of one system gave."""

    many: WrkResult
    one: WrkResult
    first_answer_s: float
    pss_bytes: int


def drive(running: Running, settings: Settings) -> Pair:
    """Warm up, then measure with 64 connections and with one."""
    probe = running.system.probe
    run_wrk(running.port, probe, connections=64, duration_s=min(2.0, settings.duration_s / 2))
    many = run_wrk(running.port, probe, connections=64, duration_s=settings.duration_s)
    one = run_wrk(running.port, probe, connections=1, duration_s=settings.duration_s / 2)
    return Pair(many, one, running.first_answer_s, running.child.pss_bytes())


def run_echo(settings: Settings) -> Report:
    """Run the echo with the access log off."""
    return _echo("echo", "JSON echo, one replica, access log off", settings, access_log=False)


def run_echo_log(settings: Settings) -> Report:
    """Run the echo with the access log on, written to a file by everybody."""
    return _echo("echo-log", "JSON echo, one replica, access log on (to a file)", settings, access_log=True)


def _echo(name: str, title: str, settings: Settings, *, access_log: bool) -> Report:
    require_wrk()
    systems = [
        trygon("trygon", "serve_echo:echo", access_log=access_log),
        uvicorn(_BASELINE, "starlette_app:app", access_log=access_log),
        uvicorn("asgi", "asgi_app:app", access_log=access_log),
        uvicorn("fastapi", "fastapi_app:app", access_log=access_log),
        trygon("trygon-fastapi", "serve_fastapi:app", access_log=access_log),
    ]
    if settings.with_peers:
        systems += [
            ray("ray", "serve_echo:echo", access_log=access_log),
            ray("ray-tuned", "serve_echo:echo", is_tuned=True, access_log=access_log),
        ]
        # The others have no access log to switch, so they stand in the table without one only.
        systems += [] if access_log else list(PEERS)
    report = Report(name, title, COLUMNS)
    outcomes = interleave(
        chosen(systems, settings), report, settings, lambda running: drive(running, settings)
    )
    wrk_rows(report, outcomes, baseline=_BASELINE)
    report.notes.append(
        "ratios are to starlette: Starlette on uvicorn (uvloop, httptools), one process, the same round"
    )
    by_name = {outcome.system.name: outcome for outcome in outcomes}
    _check_rate(report, by_name, "trygon", _BASELINE, 1.2)
    _check_rate(report, by_name, "trygon-fastapi", "fastapi", 0.9)
    if not access_log:
        _check_one_connection(report, by_name)
    return report


def run_chain(settings: Settings) -> Report:
    """Run an ingress deployment that asks one downstream deployment through a handle."""
    require_wrk()
    systems = [
        trygon("trygon-chain", "serve_echo:chain"),
        trygon("trygon", "serve_echo:echo"),
        uvicorn(_BASELINE, "starlette_app:app"),
    ]
    if settings.with_peers:
        systems += [
            ray("ray-chain", "serve_echo:chain"),
            ray("ray-tuned-chain", "serve_echo:chain", is_tuned=True),
        ]
    report = Report("chain", "Ingress deployment and one downstream deployment through a handle", COLUMNS)
    outcomes = interleave(
        chosen(systems, settings), report, settings, lambda running: drive(running, settings)
    )
    wrk_rows(report, outcomes, baseline=_BASELINE)
    report.notes.append(
        "trygon and starlette answer the plain echo; the rows named chain have two deployments"
    )
    by_name = {outcome.system.name: outcome for outcome in outcomes}
    _check_rate(report, by_name, "trygon-chain", "trygon", 0.3)
    return report


def wrk_rows(report: Report, outcomes: Sequence[Outcome[Pair]], *, baseline: str) -> None:
    """Fill the table: medians over the rounds, ratios to the baseline."""
    base = next((outcome for outcome in outcomes if outcome.system.name == baseline), None)
    base_rate = median_of(base, _rate) if base else None
    base_p50 = median_of(base, _p50_one) if base else None
    for outcome in outcomes:
        name = outcome.system.name
        if not outcome.results:
            report.add_missing(name, outcome.reason)
            continue
        rate, p50 = median_of(outcome, _rate) or 0.0, median_of(outcome, _p50_one) or 0.0
        report.rows.append(
            [
                name,
                f"{rate:,.0f}",
                ratio(rate, base_rate),
                f"{median_of(outcome, lambda pair: pair.many.p50_ms):.2f}",
                f"{median_of(outcome, lambda pair: pair.many.p99_ms):.2f}",
                f"{p50:.3f}",
                ratio(p50, base_p50),
                str(sum(pair.many.num_errors + pair.one.num_errors for pair in outcome.results)),
                f"{median_of(outcome, lambda pair: pair.first_answer_s):.2f}",
                f"{(median_of(outcome, lambda pair: pair.pss_bytes) or 0) / 1e6:.0f}",
            ]
        )
        report.raw += [_raw_line(name, number, pair) for number, pair in enumerate(outcome.results, 1)]
    _add_wrk_commands(report, outcomes)


def _rate(pair: Pair) -> float:
    return pair.many.requests_per_s


def _p50_one(pair: Pair) -> float:
    return pair.one.p50_ms


def _raw_line(name: str, number: int, pair: Pair) -> str:
    return (
        f"{name} round {number}: 64 connections {pair.many.requests_per_s:.0f} req/s, p50 {pair.many.p50_ms:.3f} ms, "
        f"p99 {pair.many.p99_ms:.3f} ms; 1 connection {pair.one.requests_per_s:.0f} req/s, p50 {pair.one.p50_ms:.3f} ms"
    )


def _add_wrk_commands(report: Report, outcomes: Sequence[Outcome[Pair]]) -> None:
    first = next((outcome.results[0] for outcome in outcomes if outcome.results), None)
    if first is not None:
        report.commands += [first.many.command, first.one.command]


def _check_rate(
    report: Report, by_name: dict[str, Outcome[Pair]], name: str, base: str, bound: float
) -> None:
    rates = [median_of(by_name[each], _rate) if each in by_name else None for each in (name, base)]
    if rates[0] and rates[1]:
        report.checks.append(Check(f"req/s of {name} / {base}", rates[0] / rates[1], bound))


def _check_one_connection(report: Report, by_name: dict[str, Outcome[Pair]]) -> None:
    ours, theirs = (
        median_of(by_name[each], _p50_one) if each in by_name else None for each in ("trygon", _BASELINE)
    )
    if ours and theirs:
        report.checks.append(
            Check(f"p50 at one connection, trygon / {_BASELINE}", ours / theirs, 1.4, is_floor=False)
        )
