"""kill -9 of the ingress, again and again, and of the supervisor: the port stays, nothing is left."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Sequence

from bench.apps.serve_faults import Parent, Worker
from bench.errors import Unavailable
from bench.instance import (
    Detached,
    Instance,
    alive,
    detached_instance,
    kill,
    running_instance,
    wait_for,
)
from bench.load import Sample
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.systems import Probe, ask
from bench.table import Check, Report
from bench.traffic import Traffic, half_capacity, mixed
from bench.wrk import require_wrk, wrk_version
from trygon import serve

__all__ = ["run_ingress_kill", "run_supervisor_kill"]

_EVERY_S = 3.0
_SLOW_S = 0.25
_PROBE = Probe("/", "GET", b"", None)


# ---- ingress


def run_ingress_kill(settings: Settings) -> Report:
    """Kill the process that holds the clients' connections every 3 s."""
    require_wrk()
    columns = (
        "kills",
        "median back after s",
        "slowest s",
        "sent",
        "in flight",
        "failed",
        "of these refused",
        "worst second",
    )
    report = Report("ingress-kill", "kill -9 of the ingress every 3 s under half load", columns)
    report.venvs.append("main")
    report.commands.append("scripts/bench ingress-kill")
    length_s = settings.length_s(full=30, quick=6)
    report.facts = [f"a kill every {_EVERY_S:g} s for {length_s:g} s, one run", wrk_version()]
    warn_if_busy(report)
    say("ingress-kill: kill -9 every 3 s")
    with running_instance() as instance:
        serve.run(Worker.options(num_replicas=2).bind(0))
        rps = half_capacity(instance.port, settings)
        replicas = instance.pids("replica")
        killed_at = []
        with Traffic(instance.port, mixed(rps)) as traffic:
            begun = time.monotonic()
            while (at := time.monotonic()) < begun + length_s:
                killed_at.append(kill(instance.only("ingress")))
                time.sleep(max(0.0, at + _EVERY_S - time.monotonic()))
        kept = len(replicas & instance.pids("replica"))
        status, _ = ask(instance.port, _PROBE)
    seen = traffic.seen
    back_s = sorted(_back_s(seen.samples, at) for at in killed_at)
    refused = sum(sample.outcome in {"refused", "connect"} for sample in seen.failed)
    in_flight = sum(sample.at <= at <= sample.ended_at for sample in seen.samples for at in killed_at)
    report.rows.append(
        [
            str(len(killed_at)),
            f"{back_s[len(back_s) // 2]:.3f}",
            f"{back_s[-1]:.3f}",
            str(len(seen.samples)),
            str(in_flight),
            seen.kinds,
            str(refused),
            f"{seen.worst_second:.0%}",
        ]
    )
    report.raw.append(f"back after {[round(each, 4) for each in back_s]}")
    report.checks += [
        Check("slowest recovery", back_s[-1], 1.0, "s", is_floor=False),
        Check("refused connections", refused, 0, is_floor=False),
        Check("replicas that kept their process", kept, 2),
        Check("status of a request to the same port afterwards", status, 200),
    ]
    report.notes += [
        "back after: the end of the last request that failed or took over 250 ms",
        "a kept connection dies with the process that holds it: what is sent on it in the next millisecond is lost too",
    ]
    return report


def _back_s(samples: Sequence[Sample], killed_at: float) -> float:
    near = [sample for sample in samples if killed_at <= sample.ended_at < killed_at + _EVERY_S]
    troubles = [s.ended_at - killed_at for s in near if not s.is_good or s.latency_s > _SLOW_S]
    if not any(sample.is_good and sample.at > killed_at for sample in near):
        return float("inf")
    return max(troubles, default=0.0)


# ---- supervisor


def run_supervisor_kill(settings: Settings) -> Report:
    """Kill it, count what is left, start the instance again."""
    columns = ("what", "rounds", "processes", "slowest s", "median s", "result")
    report = Report("supervisor-kill", "kill -9 of the supervisor", columns)
    report.venvs.append("main")
    report.commands.append("scripts/bench supervisor-kill")
    rounds = 2 if settings.is_quick else 10
    report.facts = [f"{rounds} kills, each of another instance"]
    gone_s, counts = [], []
    for number in range(rounds):
        warn_if_busy(report)
        say(f"supervisor-kill: round {number + 1} of {rounds}")
        took_s, count = _kill_family()
        gone_s.append(took_s)
        counts.append(count)
    gone_s.sort()
    report.rows.append(
        [
            "nothing left",
            str(rounds),
            str(max(counts)),
            f"{gone_s[-1]:.3f}",
            f"{gone_s[len(gone_s) // 2]:.3f}",
            "gone",
        ]
    )
    report.checks.append(Check("nothing left after", gone_s[-1], 1.0, "s", is_floor=False))
    report.notes.append(
        "processes: of the instance and what its replicas started, in their group and in a session of their own"
    )
    _add_restore(report, rounds)
    return report


def _kill_family() -> tuple[float, int]:
    """Return how long after the kill the last process was gone, and how many there were."""
    with running_instance() as instance:
        serve.run(Parent.bind())
        members = _whole_family(instance)
        killed_at = kill(instance.supervisor)
        try:
            wait_for(lambda: not alive(members), "the end of every process", timeout_s=5)
        except Unavailable:
            for pid in alive(members):
                kill(pid)
            return float("inf"), len(members)
        return time.monotonic() - killed_at, len(members)


def _whole_family(instance: Instance) -> set[int]:
    wanted = 2 * len(instance.pids("replica"))
    children: set[int] = set()

    def look() -> bool:
        children.update(json.loads(ask(instance.port, _PROBE)[1])["children"])
        return len(children) == wanted

    wait_for(look, "the processes that each replica started")
    return instance.family() | children


def _add_restore(report: Report, rounds: int) -> None:
    """Measure how soon a detached instance serves again after its supervisor was killed."""
    try:
        with detached_instance() as detached:
            took_s = sorted(_restore(detached, rounds))
    except Unavailable as error:
        report.add_missing("applications restored", str(error))
        return
    report.commands.append("trygon start --name bench --http-port PORT")
    median_s = took_s[len(took_s) // 2]
    report.rows.append(
        ["applications restored", str(rounds), "-", f"{took_s[-1]:.2f}", f"{median_s:.2f}", "all serve"]
    )
    report.checks.append(Check("applications restored after", took_s[-1], 3.0, "s", is_floor=False))
    report.notes.append(
        "restored: from `trygon start` to the first right answer of both applications, imports included"
    )


def _restore(detached: Detached, rounds: int) -> list[float]:
    serve.run(Worker.bind(0), name="one", route_prefix="/one")
    serve.run(Worker.bind(0), name="two", route_prefix="/two")
    took_s = []
    for _ in range(rounds):
        instance = detached.instance()
        members = instance.family()
        kill(instance.supervisor)
        wait_for(lambda: not alive(members), "the end of every process", timeout_s=5)  # noqa: B023
        begun = time.monotonic()
        detached.start()
        for path in ("/one", "/two"):
            wait_for(lambda: _answers(detached.port, path), f"an answer of {path}")  # noqa: B023
        took_s.append(time.monotonic() - begun)
    return took_s


def _answers(port: int, path: str) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(port, Probe(path, "GET", b"", None))[0] == 200
    return False
