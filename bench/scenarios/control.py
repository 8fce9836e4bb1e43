"""What the controller's decisions cost, and that they settle: 1,000 deployments, 10,000 replicas, no process."""

from __future__ import annotations

import statistics
import time
from typing import Any

import msgspec

from bench.scenarios.base import Settings, say, warn_if_busy
from bench.table import Check, Report
from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec
from trygon.testing.simulator import Habits, Simulator

__all__ = ["run_control"]

_DEPLOYMENTS_EACH = 5
_REPLICAS_EACH = 10
_STEPS = 300
_SURGES = (None, 0, 25)


def run_control(settings: Settings) -> Report:
    """Time single steps at growing sizes, then live through updates and crashes at the largest."""
    report = Report(
        "control",
        "One step of the controller: a replica of one deployment ends, and what follows is decided",
        ("deployments", "replicas", "median ms", "99 % ms", "with the table ms", "applications looked at"),
    )
    warn_if_busy(report)
    sizes = (10, 100) if settings.is_quick else (10, 100, 1000)
    medians = []
    for size in sizes:
        say(f"control: steps beside {size} deployments")
        medians.append(_add_steps(report, size))
    report.checks.append(
        Check(f"median step beside {sizes[-1]} deployments", medians[-1], 2.0, "ms", is_floor=False)
    )
    report.checks.append(
        Check("the same as a multiple of that beside 10", medians[-1] / medians[0], 2.0, is_floor=False)
    )
    _add_life(report, sizes[-1])
    report.notes.append(
        "a step is one event: fold it, reconcile the application, fold what follows, make its part of the "
        "routing table anew; with the table: the complete one is put together as well, as for publishing"
    )
    return report


def _application(number: int, **options: Any) -> ApplicationSpec:
    name = f"app-{number:04}"
    deployments = tuple(
        DeploymentSpec(
            name=f"D{n}",
            app_name=name,
            definition=b"",
            options=DeploymentOptions(num_replicas=_REPLICAS_EACH, **options),
            children=(f"D{n + 1}",) if n + 1 < _DEPLOYMENTS_EACH else (),
        )
        for n in range(_DEPLOYMENTS_EACH)
    )
    return ApplicationSpec(name=name, route_prefix=f"/{name}", ingress="D0", deployments=deployments)


def _filled(deployments: int) -> Simulator:
    simulator = Simulator(1)
    for number in range(deployments // _DEPLOYMENTS_EACH):
        simulator.deploy(_application(number))
    simulator.settle()
    return simulator


def _add_steps(report: Report, deployments: int) -> float:
    simulator = _filled(deployments)
    steps, tables = [], []
    looked_at = 0
    for n in range(_STEPS):
        ids = simulator.replica_ids
        victim = ids[n * 7919 % len(ids)]
        before = simulator.core.num_reconciled
        begun = time.perf_counter()
        simulator.crash(victim)
        stepped = time.perf_counter()
        simulator.core.routes.table(n)
        steps.append((stepped - begun) * 1e3)
        tables.append((time.perf_counter() - begun) * 1e3)
        looked_at += simulator.core.num_reconciled - before
        # Its replacement starts, and nobody is in a crash loop when the next one ends.
        simulator.run_for(5.0)
    simulator.settle()
    median = statistics.median(steps)
    report.rows.append(
        [
            str(deployments),
            str(deployments * _REPLICAS_EACH),
            f"{median:.3f}",
            f"{statistics.quantiles(steps, n=100)[98]:.3f}",
            f"{statistics.median(tables):.3f}",
            f"{looked_at / _STEPS:.1f}",
        ]
    )
    report.raw.append(f"{deployments} deployments: {_STEPS} steps, slowest {max(steps):.3f} ms")
    return median


def _add_life(report: Report, deployments: int) -> None:
    say(f"control: updates and crashes of {deployments} deployments")
    begun = time.perf_counter()
    simulator = Simulator(2, Habits(mean_life_s=600.0))
    count = deployments // _DEPLOYMENTS_EACH
    for turn in range(3):
        for number in range(count):
            spec = _application(number, max_surge_percent=_SURGES[number % 3], user_config=turn)
            if turn == 1:
                spec = msgspec.structs.replace(spec, import_path=f"turn:{turn}")
            simulator.deploy(spec, declarative=turn != 2)
        simulator.run_for(5.0)
    simulator.restart_controller()
    # With 10,000 replicas one would always be missing.
    simulator.habits = Habits()
    simulator.settle()
    took_s = time.perf_counter() - begun
    wanted = deployments * _REPLICAS_EACH
    ready = sum(
        simulator.num_ready(name, f"D{n}")
        for name in simulator.state.applications
        for n in range(_DEPLOYMENTS_EACH)
    )
    report.checks.append(
        Check(f"replicas ready after three updates, crashes and a restart, of {wanted}", ready, wanted)
    )
    actions = ", ".join(f"{kind} {number}" for kind, number in sorted(simulator.num_actions.items()))
    report.raw.append(
        f"{deployments} deployments through three updates, crashes (mean life 600 s) and a restarted "
        f"controller: {simulator.num_events} events in {took_s:.1f} s ({simulator.now - 1000.0:.0f} virtual s); "
        f"invariants held before each action and at the end; actions: {actions}"
    )
