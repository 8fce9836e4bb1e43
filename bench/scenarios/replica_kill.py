"""Replicas that are killed, frozen and blocked under load."""

from __future__ import annotations

import http.client
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.apps.serve_faults import Worker
from bench.instance import Instance, alive, kill, running_instance
from bench.load import Sample
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.table import Check, Report
from bench.traffic import Calls, Seen, Traffic, half_capacity, mixed
from bench.wrk import require_wrk, wrk_version
from trygon import serve
from trygon.serve.handle import DeploymentHandle

__all__ = ["run_replica_kill"]

_EVERY_S = 2.0
_REPLICAS = 4
#: Long enough that the health limits are not what ends a blocked replica.
_HEALTH = {"health_check_period_s": 10.0, "health_check_timeout_s": 120.0}
_COLUMNS = ("what happened", "times", "sent", "in flight", "failed", "worst second", "measured")


@dataclass(frozen=True)
class _Kill:
    at: float
    #: Requests that were on their way, through any replica.
    num_in_flight: int
    back_after_s: float


def run_replica_kill(settings: Settings) -> Report:
    """Kill one every 2 s, freeze one, block one."""
    require_wrk()
    report = Report(
        "replica-kill", "Replicas killed, frozen and blocked under half load, 4 replicas", _COLUMNS
    )
    report.venvs.append("main")
    report.commands.append("scripts/bench replica-kill")
    length_s = _kill_length_s(settings)
    report.facts = [f"a kill every {_EVERY_S:g} s for {length_s:g} s, one run of each phase", wrk_version()]
    for phase in (_kill_phase, _freeze_phase, _block_phase):
        warn_if_busy(report)
        with running_instance() as instance:
            serve.run(Worker.options(num_replicas=_REPLICAS, **_HEALTH).bind(0))
            rps = half_capacity(instance.port, settings)
            phase(instance, rps, settings, report)
    report.notes += [
        "in flight: on all four replicas when the signals were sent, added up; a failure among these was on the victim",
        "back after: from the kill to the first answer of a process that was not there before",
        "out of rotation: the last request that was answered late because it went there, seen by GETs and POSTs",
        "the workers use 1 ms of processor and wait for 5 ms, so something is always in flight",
    ]
    return report


# ---- killed


def _kill_phase(instance: Instance, rps: float, settings: Settings, report: Report) -> None:
    say("replica-kill: kill -9 every 2 s")
    handle = serve.get_app_handle("default")
    calls = [Calls(_caller(handle)), Calls(_caller(_retryable(handle)))]
    killed_at: list[float] = []
    length_s = _kill_length_s(settings)
    with Traffic(instance.port, mixed(rps, with_posts=True)) as traffic, calls[0], calls[1]:
        begun = time.monotonic()
        while (at := time.monotonic()) < begun + length_s:
            victims = instance.pids("replica")
            killed_at.append(kill(random.choice(sorted(victims))))
            time.sleep(max(0.0, at + _EVERY_S - time.monotonic()))
        time.sleep(1.0)
    gets, posts = traffic.seen.of("get", "get-new"), traffic.seen.of("post", "post-new")
    kills = _kills(traffic.seen.samples, killed_at)
    plain, retryable = calls[0].seen, calls[1].seen
    back_s = [each.back_after_s for each in kills]
    in_flight = sum(each.num_in_flight for each in kills)
    for name, seen in (("GET", gets), ("POST", posts), ("handle", plain), ("retryable handle", retryable)):
        report.rows.append(
            [
                f"killed: {name}",
                str(len(kills)),
                str(len(seen.samples)),
                str(_in_flight(seen.samples, killed_at)),
                seen.kinds,
                f"{traffic.seen.worst_second:.0%}" if name in {"GET", "POST"} else "-",
                f"back after {sorted(back_s)[len(back_s) // 2]:.2f} s, slowest {max(back_s):.2f} s",
            ]
        )
    late = sum(_is_late(sample, killed_at) for seen in (traffic.seen, plain) for sample in seen.failed)
    per_kill = [len(_failed_at(traffic.seen, each.at)) for each in kills]
    report.raw.append(
        f"killed: failures of each kill {per_kill}, in flight {[k.num_in_flight for k in kills]}"
    )
    report.raw.append(f"killed: back after {[round(each, 3) for each in back_s]}")
    report.checks += [
        Check("killed: GETs that failed", len(gets.failed), 0, is_floor=False),
        Check("killed: retryable handle calls that failed", len(retryable.failed), 0, is_floor=False),
        Check(
            "killed: failures, against those in flight", len(traffic.seen.failed), in_flight, is_floor=False
        ),
        Check("killed: failures sent more than 50 ms after a kill", late, 0, is_floor=False),
        Check(
            "killed: requests refused as poison",
            sum(sample.outcome == "503" for sample in traffic.seen.failed),
            0,
            is_floor=False,
        ),
        Check("killed: capacity back after", max(back_s), 1.0, "s", is_floor=False),
    ]


def _kill_length_s(settings: Settings) -> float:
    return settings.length_s(full=60, quick=7)


def _retryable(handle: DeploymentHandle) -> DeploymentHandle:
    try:
        return handle.options(retryable=True)
    except TypeError:
        say("replica-kill: handles of this version know no retryable=True: called without")
        return handle


def _caller(handle: DeploymentHandle) -> Callable[[], object]:
    return lambda: handle.answer.remote().result(timeout_s=10)


def _in_flight(samples: Sequence[Sample], killed_at: Sequence[float]) -> int:
    return sum(sample.at <= at <= sample.ended_at for sample in samples for at in killed_at)


def _kills(samples: Sequence[Sample], killed_at: Sequence[float]) -> list[_Kill]:
    """Return what each kill did; a process that answers for the first time after it is its replacement."""
    first: dict[int, float] = {}
    for sample in samples:
        if sample.is_good:
            pid = int(json.loads(sample.body)["pid"])
            first[pid] = min(first.get(pid, sample.ended_at), sample.ended_at)
    found = []
    for at in killed_at:
        back = min((begun - at for begun in first.values() if begun > at), default=float("inf"))
        in_flight = _in_flight(samples, [at])
        found.append(_Kill(at, in_flight, back))
    return found


def _failed_at(seen: Seen, killed_at: float) -> list[Sample]:
    return [sample for sample in seen.failed if killed_at <= sample.ended_at < killed_at + _EVERY_S]


def _is_late(sample: Sample, killed_at: Sequence[float]) -> bool:
    """Tell whether no kill explains a failure: the kernel tells of a death within milliseconds."""
    return not any(sample.at <= at + 0.05 and sample.ended_at >= at for at in killed_at)


# ---- frozen


def _freeze_phase(instance: Instance, rps: float, settings: Settings, report: Report) -> None:
    say("replica-kill: SIGSTOP")
    wait_s = settings.length_s(full=25, quick=14)
    before = instance.pids("replica")
    victim = min(before)
    with Traffic(instance.port, mixed(rps, with_posts=True)) as traffic:
        stopped_at = kill(victim, signal.SIGSTOP)
        try:
            replaced_s = _until(lambda: victim not in alive({victim}) or _is_helped(instance, before), wait_s)
            time.sleep(1.0)
        finally:
            if alive({victim}):
                kill(victim, signal.SIGCONT)
    samples = traffic.seen.samples
    out_s = _last_stuck_s(samples, stopped_at)
    report.rows.append(
        _stuck_row("frozen", traffic.seen, stopped_at, out_s, f"replaced after {replaced_s:.1f} s")
    )
    report.checks += [
        Check("frozen: out of rotation after", out_s, 2.0, "s", is_floor=False),
        Check("frozen: replaced after", replaced_s, 10.0, "s", is_floor=False),
    ]


def _is_helped(instance: Instance, before: set[int]) -> bool:
    """Tell whether a replica runs that was not there before."""
    return bool(instance.pids("replica") - before)


def _until(condition: Callable[[], bool], wait_s: float) -> float:
    begun = time.monotonic()
    while not condition():
        if time.monotonic() > begun + wait_s:
            return float("inf")
        time.sleep(0.02)
    return time.monotonic() - begun


def _last_stuck_s(samples: Sequence[Sample], begun: float) -> float:
    """Return how long after `begun` the last request was sent that then waited for the victim."""
    return max((s.at - begun for s in samples if s.at > begun and s.latency_s > 1.0), default=0.0)


def _stuck_row(name: str, seen: Seen, begun: float, out_s: float, measured: str) -> list[str]:
    return [
        name,
        "1",
        str(len(seen.samples)),
        str(_in_flight(seen.samples, [begun])),
        seen.kinds,
        f"{seen.worst_second:.0%}",
        f"out of rotation after {out_s:.2f} s, {measured}",
    ]


# ---- blocked


def _block_phase(instance: Instance, rps: float, settings: Settings, report: Report) -> None:
    block_s = settings.length_s(full=60, quick=14)
    say(f"replica-kill: a handler blocks its loop for {block_s:g} s")
    before = instance.pids("replica")
    with Traffic(instance.port, mixed(rps, with_posts=True)) as traffic:
        begun = time.monotonic()
        thread = threading.Thread(target=_block, args=(instance.port, block_s), daemon=True)
        thread.start()
        helped_s = _until(lambda: _is_helped(instance, before), block_s + 1)
        thread.join(block_s + 10)
        survived = len(before & instance.pids("replica"))
    out_s = _last_stuck_s(traffic.seen.samples, begun)
    help_text = f"helped after {helped_s:.1f} s, {survived} of {_REPLICAS} survived"
    report.rows.append(_stuck_row("loop blocked", traffic.seen, begun, out_s, help_text))
    slow = sum(sample.at >= begun - 0.1 and sample.latency_s > 1.0 for sample in traffic.seen.samples)
    report.raw.append(f"loop blocked for {block_s:g} s: requests that took over 1 s: {slow}")
    report.checks += [
        Check("loop blocked: out of rotation after", out_s, 2.0, "s", is_floor=False),
        Check("loop blocked: helped after", helped_s, 12.0, "s", is_floor=False),
        Check("loop blocked: replicas that survived", survived, _REPLICAS),
    ]


def _block(port: int, seconds: float) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds + 10)
    try:
        connection.request("GET", f"/?block={seconds:g}")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        say("replica-kill: the blocking request itself got no answer")
    finally:
        connection.close()
