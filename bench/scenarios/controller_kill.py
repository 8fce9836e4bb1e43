"""kill -9 of the controller every 3 s under load, with a deploy in between."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from bench.apps.serve_faults import Worker
from bench.errors import Unavailable
from bench.instance import Instance, kill, running_instance, wait_for
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.table import Check, Report
from bench.traffic import Calls, Seen, Traffic, half_capacity, mixed
from bench.wrk import require_wrk, wrk_version
from trygon import serve

__all__ = ["run_controller_kill"]

_EVERY_S = 3.0
_REPLICAS = 2
_COLUMNS = (
    "phase",
    "kills",
    "median back after s",
    "slowest s",
    "replicas kept",
    "sent",
    "failed",
    "connections lost",
    "worst second",
)


@dataclass
class _Phase:
    back_s: list[float]
    #: Replicas that had the same process id at the end as at the beginning.
    kept: int
    seen: Seen
    calls: Seen


def run_controller_kill(settings: Settings) -> Report:
    """Kill it again and again, ask at once, and tell what the clients saw."""
    require_wrk()
    report = Report("controller-kill", "kill -9 of the controller every 3 s under half load", _COLUMNS)
    report.venvs.append("main")
    report.commands.append("scripts/bench controller-kill")
    warn_if_busy(report)
    length_s = settings.length_s(full=60, quick=7)
    report.facts = [f"a kill every {_EVERY_S:g} s for {length_s:g} s, one run", wrk_version()]
    with running_instance() as instance:
        handle = serve.run(Worker.options(num_replicas=_REPLICAS).bind(0))
        rps = half_capacity(instance.port, settings)
        calls = Calls(lambda: handle.answer.remote().result(timeout_s=10))
        say("controller-kill: nothing else happens")
        with Traffic(instance.port, mixed(rps)) as traffic, calls:
            quiet_s, kept = _kill_often(instance, length_s)
        quiet = _Phase(quiet_s, kept, traffic.seen, calls.seen)
        say("controller-kill: a deploy in between")
        deploy = _Deploy()
        calls = Calls(lambda: handle.answer.remote().result(timeout_s=10))
        with Traffic(instance.port, mixed(rps)) as traffic, calls:
            deploy.begin()
            deploy_s, _ = _kill_often(instance, 2 * _EVERY_S)
            deploy.wait()
            wait_for(lambda: len(instance.pids("replica")) == _REPLICAS, "the old replicas to leave")
            time.sleep(1.0)
        deployed = _Phase(deploy_s, _REPLICAS, traffic.seen, calls.seen)
    after = [sample for sample in deployed.seen.samples if sample.at > deploy.ended_at]
    new = sum('"label":1' in sample.body for sample in after)
    for name, phase in (("kills only", quiet), ("with a deploy", deployed)):
        report.rows.append(_row(name, phase, is_kept=phase is quiet))
        report.raw.append(f"{name}: back after {[round(each, 4) for each in phase.back_s]}")
    phases = (quiet, deployed)
    failed = sum(len(phase.seen.failed) + len(phase.calls.failed) for phase in phases)
    report.checks += [
        Check("failed requests and handle calls", failed, 0, is_floor=False),
        Check("slowest recovery", max(max(phase.back_s) for phase in phases), 1.0, "s", is_floor=False),
        Check("replicas that kept their process", quiet.kept, _REPLICAS),
        Check("answers of the new version after its deploy", new / max(1, len(after)), 1.0),
    ]
    report.notes += [
        "back after: from the kill until serve.status() has answered",
        "the deploy is under way when the controller is killed for the first time",
        f"handle calls besides: {len(quiet.calls.samples) + len(deployed.calls.samples)}, failed: "
        f"{quiet.calls.kinds} and {deployed.calls.kinds}",
    ]
    return report


class _Deploy:
    """A deploy on a thread of its own."""

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None
        self.ended_at = 0.0

    def begin(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        self._thread.join(60)
        if self._thread.is_alive():
            raise Unavailable("the deploy did not end within 60 s")
        if self._error is not None:
            raise Unavailable(f"the deploy failed: {self._error}")

    def _run(self) -> None:
        try:
            serve.run(Worker.options(num_replicas=_REPLICAS).bind(1))
        except Exception as error:
            self._error = error
        self.ended_at = time.monotonic()


def _kill_often(instance: Instance, length_s: float) -> tuple[list[float], int]:
    """Kill at once and then every 3 s; return the recoveries and how many replicas kept their process."""
    before = instance.pids("replica")
    begun, back_s = time.monotonic(), []
    while (at := time.monotonic()) < begun + length_s:
        victim = instance.only("controller")
        killed_at = kill(victim)
        serve.status()
        back_s.append(time.monotonic() - killed_at)
        wait_for(lambda: instance.pids("controller") - {victim}, "another controller")  # noqa: B023
        time.sleep(max(0.0, at + _EVERY_S - time.monotonic()))
    return back_s, len(before & instance.pids("replica"))


def _row(name: str, phase: _Phase, *, is_kept: bool) -> list[str]:
    back_s = sorted(phase.back_s)
    return [
        name,
        str(len(back_s)),
        f"{back_s[len(back_s) // 2]:.3f}",
        f"{back_s[-1]:.3f}",
        f"{phase.kept} of {_REPLICAS}" if is_kept else "replaced",
        str(len(phase.seen.samples)),
        phase.seen.kinds,
        str(phase.seen.num_lost_connections),
        f"{phase.seen.worst_second:.0%}",
    ]
