"""Time from the command to the first answer, memory of all processes, time to import."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from dataclasses import dataclass

from bench import venvs
from bench.scenarios.base import Outcome, Settings, chosen, interleave, median_of, say
from bench.systems import PEERS, Running, ray, trygon, uvicorn
from bench.table import Check, Report

__all__ = ["run_startup"]

_HEAVY = ("numpy", "pandas", "ray", "mlflow", "grpc")
_IMPORTS = ("pass", "import trygon", "from trygon import serve; serve.deployment")


@dataclass(frozen=True)
class _Start:
    first_answer_s: float
    pss_bytes: int
    num_processes: int


def run_startup(settings: Settings) -> Report:
    """Start each system five times and look at it."""
    systems = [trygon("trygon", "serve_echo:echo"), uvicorn("starlette", "starlette_app:app")]
    systems += [trygon("trygon-fastapi", "serve_fastapi:app"), uvicorn("fastapi", "fastapi_app:app")]
    if settings.with_peers:
        systems += [ray("ray", "serve_echo:echo"), ray("ray-tuned", "serve_echo:echo", is_tuned=True), *PEERS]
    report = Report(
        "startup",
        "From the command to the first right answer",
        ("system", "first answer s", "PSS MB", "processes"),
    )
    rounds = settings.rounds if settings.is_quick else max(5, settings.rounds)
    outcomes = interleave(chosen(systems, settings), report, settings, _look, rounds=rounds)
    for outcome in outcomes:
        _add_row(report, outcome)
    report.notes.append(
        f"median of {rounds} starts, each a fresh process on warm file caches; PSS of all its processes"
    )
    report.notes.append("PSS is the proportional set size: pages shared by n processes count 1/n in each")
    if not settings.only or "trygon" in settings.only:
        _time_imports(report)
    return report


def _look(running: Running) -> _Start:
    # A moment for what starts after the first answer.
    time.sleep(0.5)
    return _Start(running.first_answer_s, running.child.pss_bytes(), len(running.child.pids()))


def _add_row(report: Report, outcome: Outcome[_Start]) -> None:
    name = outcome.system.name
    if not outcome.results:
        report.add_missing(name, outcome.reason)
        return
    first_s = median_of(outcome, lambda start: start.first_answer_s) or 0.0
    pss_mb = (median_of(outcome, lambda start: start.pss_bytes) or 0.0) / 1e6
    processes = median_of(outcome, lambda start: start.num_processes) or 0
    report.rows.append([name, f"{first_s:.2f}", f"{pss_mb:.0f}", f"{processes:.0f}"])
    times = ", ".join(f"{start.first_answer_s:.3f}" for start in outcome.results)
    report.raw.append(f"{name}: first answers after {times} s")
    if name == "trygon":
        report.checks.append(Check("trygon run to first 200", first_s, 1.0, "s", is_floor=False))
        report.checks.append(Check("PSS of all processes of trygon", pss_mb, 150, "MB", is_floor=False))


def _time_imports(report: Report) -> None:
    """Time `import trygon` as the difference to a bare interpreter: -X importtime would add its own cost."""
    python = str(venvs.executable(venvs.MAIN, "python"))
    seconds: dict[str, list[float]] = {code: [] for code in _IMPORTS}
    say("startup: import times")
    for _ in range(11):
        for code, times in seconds.items():
            begun = time.perf_counter()
            done = subprocess.run(
                [python, "-c", code], capture_output=True, text=True, check=False, timeout=60
            )
            times.append(time.perf_counter() - begun)
            if done.returncode:
                report.notes.append(f"{code!r} failed: {done.stderr.strip().splitlines()[-1]}")
                return
    bare = statistics.median(seconds["pass"])
    for code in _IMPORTS[1:]:
        cost_ms = (statistics.median(seconds[code]) - bare) * 1000
        report.notes.append(
            f"{code!r} takes {cost_ms:.1f} ms more than a bare interpreter ({bare * 1000:.1f} ms)"
        )
        if code == "import trygon":
            report.checks.append(
                Check(f"{code!r} above a bare interpreter", cost_ms, 100, "ms", is_floor=False)
            )
        heavy = _heavy_imports(python, code)
        report.notes.append(f"{code!r} imports {', '.join(heavy) or 'none'} of {', '.join(_HEAVY)}")
        report.checks.append(Check(f"heavy modules behind {code!r}", len(heavy), 0, is_floor=False))


def _heavy_imports(python: str, code: str) -> list[str]:
    ask = f"{code}\nimport sys, json\nprint(json.dumps([m for m in {_HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True, timeout=60)
    found: list[str] = json.loads(done.stdout)
    return found
