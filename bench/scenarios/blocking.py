"""What a handler that blocks for 5 s does to everybody else."""

from __future__ import annotations

import http.client
import json
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import load
from bench.load import Sample, Target
from bench.scenarios.base import Outcome, Settings, chosen, interleave
from bench.stats import percentile
from bench.systems import Probe, Running, ask, ray, trygon
from bench.table import Check, Report

__all__ = ["run_blocking"]

_BLOCK_S = 5.0
_PATHS = {"healthz": "/-/healthz", "other application": "/other", "sync": "/sync", "async": "/async"}
_RPS = 100
#: What is looked at while each kind of handler blocks; "same" is the deployment that blocks.
_WATCHED = ("healthz", "other application", "same")
_LABELS = {"same": "its other replicas"}


@dataclass
class _Phases:
    """Latencies in milliseconds by (kind of handler, watched)."""

    quiet: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    blocked: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    #: Requests that landed on the blocked replica itself: how many, and the slowest.
    on_blocked: dict[str, tuple[int, float]] = field(default_factory=dict)
    num_failed: int = 0


def run_blocking(settings: Settings) -> Report:
    """Send to everybody, quiet and while one replica is blocked."""
    program, probe = "serve_blocking.py", Probe("/async", "GET", b"", None)
    systems = [trygon("trygon", program, probe=probe)]
    if settings.with_peers:
        systems.append(ray("ray", program, probe=probe, num_cpus=8))
    columns = (
        "system, handler, watched",
        "p99 ms quiet",
        "p99 ms blocked",
        "max ms blocked",
        "requests",
        "bound ms",
    )
    report = Report("blocking", f"A handler that blocks for {_BLOCK_S:g} s on one of two replicas", columns)
    outcomes = interleave(
        chosen(systems, settings), report, settings, lambda running: _measure(running, settings)
    )
    for outcome in outcomes:
        if not outcome.results:
            report.add_missing(outcome.system.name, outcome.reason)
            continue
        _add_rows(report, outcome)
    report.notes += [
        f"{_RPS} requests/s to each target, open loop; p99: median of the rounds",
        "bound: 2 times the quiet p99 plus 5 ms",
        "its other replicas: requests of the same deployment that another replica answered",
    ]
    return report


def _measure(running: Running, settings: Settings) -> _Phases:
    phases = _Phases()
    blocks = 1 if settings.is_quick else 2
    for kind in ("sync", "async"):
        _warm(running)
        quiet_s = max(4.0, settings.duration_s)
        targets = [Target(name, path, _RPS) for name, path in _PATHS.items() if name not in ("sync", "async")]
        targets.append(Target("same", _PATHS[kind], _RPS))
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            seconds = quiet_s + blocks * _BLOCK_S + 1
            sender = load.begin(running.port, targets, seconds, Path(folder))
            time.sleep(quiet_s)
            windows = [_block(running.port, kind) for _ in range(blocks)]
            samples = load.finish(sender)
        _sort(phases, kind, samples, windows)
    return phases


def _warm(running: Running) -> None:
    for path in _PATHS.values():
        for _ in range(20):
            ask(running.port, Probe(path, "GET", b"", None))


def _block(port: int, kind: str) -> tuple[float, float, int]:
    """Block one replica; return when it began and ended and which process it was."""
    found: list[tuple[float, float, int]] = []

    def act() -> None:
        begun = time.monotonic()
        try:
            probe = Probe(f"{_PATHS[kind]}?block={_BLOCK_S:g}", "GET", b"", None)
            status, body = ask(port, probe, timeout_s=4 * _BLOCK_S)
            pid = int(json.loads(body)["pid"]) if status == 200 else 0
        except (OSError, http.client.HTTPException):
            pid = 0
        found.append((begun, time.monotonic(), pid))

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join()
    return found[0]


def _sort(
    phases: _Phases, kind: str, samples: Sequence[Sample], windows: Sequence[tuple[float, float, int]]
) -> None:
    first = windows[0][0]
    landed: list[float] = []
    for sample in samples:
        key, ms = (kind, sample.target), sample.latency_s * 1000
        if sample.ended_at < first:
            phases.quiet.setdefault(key, []).append(ms)
            continue
        window = next((w for w in windows if w[0] <= sample.at <= w[1]), None)
        if window is None:
            continue
        if not sample.is_good:
            phases.num_failed += 1
        elif sample.target == "same" and kind == "async" and json.loads(sample.body)["pid"] == window[2]:
            landed.append(ms)
        else:
            phases.blocked.setdefault(key, []).append(ms)
    if kind == "async":
        phases.on_blocked[kind] = (len(landed), max(landed, default=0.0))


def _add_rows(report: Report, outcome: Outcome[_Phases]) -> None:
    name = outcome.system.name
    for kind in ("sync", "async"):
        for watched in _WATCHED:
            key = (kind, watched)
            quiet = statistics.median(percentile(p.quiet.get(key, []), 0.99) for p in outcome.results)
            blocked = statistics.median(percentile(p.blocked.get(key, []), 0.99) for p in outcome.results)
            slowest = max(max(p.blocked.get(key, [math.nan])) for p in outcome.results)
            count = sum(len(p.blocked.get(key, [])) for p in outcome.results)
            bound = 2 * quiet + 5
            label = f"{name}, {kind}, {_LABELS.get(watched, watched)}"
            cells = [f"{quiet:.2f}", f"{blocked:.2f}", f"{slowest:.1f}", str(count), f"{bound:.1f}"]
            report.rows.append([label, *cells])
            if name == "trygon":
                what = f"p99 of {_LABELS.get(watched, watched)} while a {kind} handler blocks"
                report.checks.append(Check(what, blocked, bound, "ms", is_floor=False))
    counts = [phases.on_blocked["async"] for phases in outcome.results]
    report.notes.append(
        f"{name}: on the replica whose loop was blocked landed {sum(c for c, _ in counts)} requests in all rounds, "
        f"the slowest took {max(ms for _, ms in counts):.0f} ms; failed in all: "
        f"{sum(phases.num_failed for phases in outcome.results)}"
    )
