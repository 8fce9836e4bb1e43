"""A 100 MB array through a handle to another replica that adds it up."""

from __future__ import annotations

import json
import statistics

from bench.errors import Unavailable
from bench.scenarios.base import Settings, chosen, interleave, median_of
from bench.systems import Probe, Running, ask, ray, trygon
from bench.table import Check, Report

__all__ = ["run_payload"]

_SIZE_GB = 0.1


def run_payload(settings: Settings) -> Report:
    """Time the calls inside the sending replica."""
    probe = Probe("/", "GET", b"", None)
    systems = [trygon("trygon", "serve_payload:app", probe=probe)]
    if settings.with_peers:
        systems.append(ray("ray", "serve_payload:app", probe=probe))
    calls = 5 if settings.is_quick else 20
    report = Report(
        "payload", "100 MB numpy array through a handle, a.sum() back", ("system", "GB/s", "ms a call")
    )

    def measure(running: Running) -> float:
        status, body = ask(running.port, Probe(f"/?calls={calls}", "GET", b"", None), timeout_s=120)
        if status != 200:
            raise Unavailable(f"status {status}: {body[:200]!r}")
        seconds: list[float] = json.loads(body)["seconds"]
        return statistics.median(seconds)

    for outcome in interleave(chosen(systems, settings), report, settings, measure):
        name, seconds = outcome.system.name, median_of(outcome, float)
        if seconds is None:
            report.add_missing(name, outcome.reason)
            continue
        report.rows.append([name, f"{_SIZE_GB / seconds:.2f}", f"{seconds * 1000:.1f}"])
        report.raw.append(f"{name}: {', '.join(f'{each * 1000:.1f}' for each in outcome.results)} ms a call")
        if name == "trygon":
            report.checks.append(Check("100 MB array through a handle", _SIZE_GB / seconds, 1.0, "GB/s"))
    report.notes.append(f"median of {calls} sequential calls in each round; the time holds the sum itself")
    return report
