"""Steps of load on a deployment that scales: how soon it has what it needs, how often it changes, what fails."""

from __future__ import annotations

import contextlib
import http.client
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.apps.serve_autoscale import DOWN_S, TARGET, UP_S, WORK_S, app
from bench.instance import Instance, running_instance
from bench.load import Load, Sample, Target, begin, stop
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.table import Check, Report
from trygon import serve

__all__ = ["run_autoscale"]

_COLUMNS = ("step", "requests a second", "replicas needed", "after s", "changes", "sent", "failed", "p99 ms")
#: Requests a second of the load that is called x1: 1.5 in work at a time, which one replica can take.
_BASE_RPS = 30.0
#: Beyond the delay of the configuration, start-up included.
_SLACK_S = 1.0
_START_UP_S = 0.3
_FIRST_ANSWER_S = 0.3
_POLL_S = 0.01


@dataclass
class _Step:
    factor: int
    replicas: int
    #: From the change of the load until that many replicas run and no more.
    after_s: float = 0.0
    changes: int = 0
    samples: list[Sample] = field(default_factory=list)

    @property
    def num_failed(self) -> int:
        return sum(1 for sample in self.samples if not sample.is_good)


def run_autoscale(settings: Settings) -> Report:
    """Load x1, x5, x1, 0 and x1, each until the number has settled."""
    report = Report("autoscale", "Steps of load on a 50 ms handler that scales", _COLUMNS)
    report.venvs.append("main")
    report.commands.append("scripts/bench autoscale")
    report.facts = ["one run; an open-loop sender of its own process for each step"]
    warn_if_busy(report)
    steps = [_Step(factor, _needed(factor)) for factor in (1, 5, 1, 0, 1)]
    with running_instance() as instance:
        serve.run(app)
        say("autoscale: from zero to the first answer")
        first_s = [_first_answer(instance) for _ in range(1 if settings.is_quick else 5)]
        for step in steps:
            say(f"autoscale: load x{step.factor}")
            _run(instance, step, hold_s=2.0 if settings.is_quick else 6.0)
    _tell(report, steps, first_s)
    return report


def _needed(factor: int) -> int:
    ongoing = factor * _BASE_RPS * WORK_S
    return -(-round(ongoing * 1000) // (TARGET * 1000))


def _first_answer(instance: Instance) -> float:
    """Wait until no replica runs, ask, and return how long the answer took."""
    _wait_replicas(instance, 0, DOWN_S + 10)
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        connection.getresponse().read()
    return time.monotonic() - begun - WORK_S


def _run(instance: Instance, step: _Step, *, hold_s: float) -> None:
    before = _num_changes()
    with tempfile.TemporaryDirectory() as folder:
        load: Load | None = None
        if step.factor:
            target = Target("work", "/", step.factor * _BASE_RPS)
            load = begin(instance.port, [target], 120, Path(folder))
        step.after_s = _wait_replicas(instance, step.replicas, max(UP_S, DOWN_S) + 20)
        # What follows now is a change too many.
        time.sleep(hold_s)
        if load is not None:
            step.samples = stop(load)
    step.changes = _num_changes() - before


def _wait_replicas(instance: Instance, count: int, timeout_s: float) -> float:
    """Return after how long so many replicas run, ready and no more; the timeout where they never do."""
    begun = time.monotonic()
    while time.monotonic() - begun < timeout_s:
        states = serve.status().applications["default"].deployments["Work"].replica_states
        if len(instance.pids("replica")) == count == states.get("RUNNING", 0):
            break
        time.sleep(_POLL_S)
    return time.monotonic() - begun


def _num_changes() -> int:
    """Count the changes of the number so far, from the decisions that `trygon explain` shows."""
    from trygon.serve.session import current_session

    session = current_session()
    assert session is not None
    (found,) = session.instance.explain("default/Work").deployments
    return sum(1 for decision in found.decisions if decision.text.startswith("scaled from"))


def _tell(report: Report, steps: list[_Step], first_s: list[float]) -> None:
    for step in steps:
        latencies = sorted(sample.latency_s for sample in step.samples)
        report.rows.append(
            [
                f"x{step.factor}",
                f"{step.factor * _BASE_RPS:g}",
                str(step.replicas),
                f"{step.after_s:.2f}",
                str(step.changes),
                str(len(step.samples)),
                str(step.num_failed),
                f"{1000 * latencies[int(0.99 * (len(latencies) - 1))]:.0f}" if latencies else "-",
            ]
        )
    ups, downs = _directions(steps)
    failed = sum(step.num_failed for step in steps)
    beyond = max(step.changes for step in steps) - 1
    report.raw += [f"first answers: {first_s}"]
    report.checks += [
        Check("failed requests", failed, 0, is_floor=False),
        Check("slowest step up", max(ups), UP_S + _SLACK_S + _START_UP_S, "s", is_floor=False),
        Check("slowest step down", max(downs), DOWN_S + _SLACK_S + _START_UP_S, "s", is_floor=False),
        Check("changes beyond the needed one, worst step", beyond, 1, is_floor=False),
        Check(
            "from zero to the first answer, median",
            statistics.median(first_s),
            _FIRST_ANSWER_S,
            "s",
            is_floor=False,
        ),
    ]
    report.notes += [
        f"upscale_delay_s is {UP_S:g}, downscale_delay_s is {DOWN_S:g} (to zero too), look_back_period_s is 1, "
        f"target_ongoing_requests is {TARGET}",
        "after s: from the change of the load until exactly the needed replicas are ready, which includes their start",
        "from zero: one request to a deployment without a replica, less the 50 ms of the handler; its constructor "
        "does nothing and its imports are in the warm image",
    ]


def _directions(steps: list[_Step]) -> tuple[list[float], list[float]]:
    before = 0
    ups, downs = [], []
    for step in steps:
        (ups if step.replicas > before else downs).append(step.after_s)
        before = step.replicas
    return ups, downs
