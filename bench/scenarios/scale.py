"""From 1 to 20 to 1 replicas under load, and how soon one replica is ready."""

from __future__ import annotations

import statistics
import time

from bench.apps.serve_faults import Worker
from bench.instance import Instance, running_instance, wait_for
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.table import Check, Report
from bench.traffic import Seen, Traffic, half_capacity, mixed
from bench.wrk import require_wrk, wrk_version
from trygon import serve

__all__ = ["run_scale"]

_COLUMNS = ("step", "times", "median s", "slowest s", "sent", "failed", "connections lost", "worst second")


def run_scale(settings: Settings) -> Report:
    """Redeploy with another number of replicas, again and again."""
    require_wrk()
    many = 6 if settings.is_quick else 20
    report = Report("scale", f"1 to {many} to 1 replicas by redeploying", _COLUMNS)
    report.venvs.append("main")
    report.commands.append("scripts/bench scale")
    rounds = 1 if settings.is_quick else 5
    report.facts = [f"{rounds} times up and down, one run", wrk_version()]
    warn_if_busy(report)
    say("scale: one replica on an idle machine")
    one_s = _one_replica(3 if settings.is_quick else 10)
    report.rows.append(_row("one replica, idle", one_s, None))
    say(f"scale: 1 to {many} to 1 replicas at half load")
    up_s: list[float] = []
    down_s: list[float] = []
    with running_instance() as instance:
        serve.run(Worker.options(num_replicas=1).bind(0))
        rps = half_capacity(instance.port, settings)
        with Traffic(instance.port, mixed(rps)) as traffic:
            for _ in range(rounds):
                up_s.append(_scale(instance, many))
                down_s.append(_scale(instance, 1))
            time.sleep(2.0)
    report.rows += [
        _row(f"1 to {many}, half load", up_s, traffic.seen),
        _row(f"{many} to 1, half load", down_s, traffic.seen),
    ]
    report.raw += [f"one replica: {one_s}", f"up: {up_s}", f"down: {down_s}"]
    report.checks += [
        Check("failed requests", len(traffic.seen.failed), 0, is_floor=False),
        Check("connections lost", traffic.seen.num_lost_connections, 0, is_floor=False),
        Check("one replica on an idle machine, median", statistics.median(one_s), 0.1, "s", is_floor=False),
    ]
    report.notes += [
        "one replica: from the call of serve.run to its return, the building of the application included; "
        "its constructor does nothing and its imports are in the warm image",
        "a step at half load: from the call of serve.run until that many replica processes run and no more",
        "the traffic is that of one replica's half capacity, and was counted over all steps together",
    ]
    return report


def _one_replica(rounds: int) -> list[float]:
    with running_instance():
        took_s = []
        for number in range(rounds):
            begun = time.monotonic()
            serve.run(Worker.bind(number), name=f"app{number}", route_prefix=f"/{number}")
            took_s.append(time.monotonic() - begun)
            serve.delete(f"app{number}")
        return took_s


def _scale(instance: Instance, replicas: int) -> float:
    begun = time.monotonic()
    serve.run(Worker.options(num_replicas=replicas).bind(0))
    wait_for(lambda: len(instance.pids("replica")) == replicas, f"{replicas} replicas", timeout_s=60)
    return time.monotonic() - begun


def _row(step: str, took_s: list[float], seen: Seen | None) -> list[str]:
    cells = [step, str(len(took_s)), f"{statistics.median(took_s):.3f}", f"{max(took_s):.3f}"]
    if seen is None:
        return [*cells, "-", "-", "-", "-"]
    lost = str(seen.num_lost_connections)
    return [*cells, str(len(seen.samples)), seen.kinds, lost, f"{seen.worst_second:.0%}"]
