"""kill -9 of a replica, and of the process that holds the clients' connections, under an open-loop load."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import load
from bench.errors import Unavailable
from bench.load import Sample, Target
from bench.processes import socket_owner
from bench.scenarios.base import Outcome, Settings, chosen, interleave
from bench.systems import Probe, Running, ask, ray, trygon
from bench.table import Check, Report

__all__ = ["run_kill"]

_PROBE = Probe("/", "GET", b"", None)
_RPS = 500
_BEFORE_S = 3.0
#: After the ingress was killed, an answer that took longer is not "back to full".
_SLOW_S = 0.25


@dataclass(frozen=True)
class _Kill:
    #: From the kill to the first answer of a new replica, or to the last failure for the ingress.
    back_after_s: float | None
    num_sent: int
    #: Requests that were on their way, through any replica, when the signal was sent.
    num_in_flight: int
    failures: Counter[str]
    #: Failed requests that were sent after the kill.
    num_late_failures: int
    slowest_failure_s: float
    slowest_answer_s: float
    num_hung: int
    connects: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Round:
    replica: _Kill
    ingress: _Kill


def run_kill(settings: Settings) -> Report:
    """Kill a replica, then the ingress, and tell what the clients saw."""
    columns = (
        "system, killed",
        "back after s",
        "sent",
        "in flight",
        "failed",
        "of these sent later",
        "slowest failure s",
        "slowest answer s",
        "hung",
        "connects refused",
    )
    systems = [trygon("trygon", "serve_kill:app", probe=_PROBE)]
    if settings.with_peers:
        systems += [
            ray("ray", "serve_kill:app", probe=_PROBE, num_cpus=8),
            ray("ray-tuned", "serve_kill:app", probe=_PROBE, num_cpus=8, is_tuned=True),
        ]
    report = Report("kill", f"kill -9 under {_RPS} requests/s, 4 replicas, 10 ms of work each", columns)

    def measure(running: Running) -> _Round:
        after_s = 8.0 if settings.is_quick else 15.0
        replica = _kill_replica(running, after_s)
        ingress = _kill_ingress(running, after_s if running.system.name == "trygon" else 2 * after_s)
        return _Round(replica, ingress)

    for outcome in interleave(chosen(systems, settings), report, settings, measure):
        if not outcome.results:
            report.add_missing(outcome.system.name, outcome.reason)
            continue
        _add_rows(report, outcome)
    report.notes += [
        "each figure is that of the worst round",
        "back after: replica: first answer of a new process; ingress: the last request that failed or took over 250 ms, or connect that failed",
        "in flight: on all four replicas when the signal was sent; hung: no answer within 10 s",
        "connects refused: of one connect() every 5 ms",
    ]
    return report


def _kill_replica(running: Running, after_s: float) -> _Kill:
    old = _replicas(running.port, 4)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        sender = load.begin(running.port, [Target("all", "/", _RPS)], _BEFORE_S + after_s, Path(folder))
        time.sleep(_BEFORE_S)
        victim = min(old)
        killed_at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        samples = load.finish(sender)
    fresh = [
        s.ended_at for s in samples if s.is_good and s.at > killed_at and json.loads(s.body)["pid"] not in old
    ]
    return _judge(samples, killed_at, min(fresh) - killed_at if fresh else None)


def _replicas(port: int, wanted: int) -> set[int]:
    """Return the process ids of all replicas, as they tell them."""
    found: set[int] = set()
    deadline = time.monotonic() + 20
    while len(found) < wanted and time.monotonic() < deadline:
        status, body = ask(port, _PROBE)
        if status == 200:
            found.add(int(json.loads(body)["pid"]))
    if len(found) < wanted:
        raise Unavailable(f"only {len(found)} of {wanted} replicas answered within 20 s")
    return found


def _judge(samples: Sequence[Sample], killed_at: float, back_after_s: float | None) -> _Kill:
    bad = [sample for sample in samples if not sample.is_good]
    return _Kill(
        back_after_s=back_after_s,
        num_sent=len(samples),
        num_in_flight=sum(sample.at <= killed_at <= sample.ended_at for sample in samples),
        failures=Counter(sample.outcome for sample in bad),
        num_late_failures=sum(sample.at > killed_at for sample in bad),
        slowest_failure_s=max((sample.latency_s for sample in bad), default=0.0),
        slowest_answer_s=max(
            (s.latency_s for s in samples if s.is_good and s.ended_at > killed_at), default=0.0
        ),
        num_hung=sum(sample.outcome == "timeout" for sample in bad),
    )


class _Knocker:
    """Connects every 5 ms on a thread of its own and notes what happens."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.connects = 0
        self.refused: list[tuple[float, str]] = []

    def __enter__(self) -> _Knocker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.connects += 1
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError as error:
                name = errno.errorcode.get(error.errno, "?") if error.errno else type(error).__name__
                self.refused.append((time.monotonic(), name))


def _kill_ingress(running: Running, after_s: float) -> _Kill:
    victim = _ingress_pid(running)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _Knocker(running.port) as knocker:
        sender = load.begin(running.port, [Target("all", "/", _RPS)], _BEFORE_S + after_s, Path(folder))
        time.sleep(_BEFORE_S)
        killed_at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        samples = load.finish(sender)
    troubles = [
        s.ended_at for s in samples if s.ended_at >= killed_at and not (s.is_good and s.latency_s < _SLOW_S)
    ]
    troubles += [at for at, _ in knocker.refused]
    good = [sample for sample in samples if sample.is_good and sample.at > killed_at]
    back = max((at - killed_at for at in troubles), default=0.0) if good else None
    judged = _judge(samples, killed_at, back)
    refused = Counter(name for _, name in knocker.refused)
    return _Kill(**{**judged.__dict__, "connects": knocker.connects, "refused": refused})


def _ingress_pid(running: Running) -> int:
    """Return the process that answers on a connection of ours."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        connection.recv(65536)
        pid = socket_owner(running.child, running.port, connection.getsockname()[1])
    if pid is None:
        raise Unavailable("no process of it holds the connection, so the ingress process is not known")
    if pid == running.child.pid:
        raise Unavailable(
            "the process that was started holds the connections itself: nothing would restart it"
        )
    return pid


def _add_rows(report: Report, outcome: Outcome[_Round]) -> None:
    name = outcome.system.name
    replica = [each.replica for each in outcome.results]
    ingress = [each.ingress for each in outcome.results]
    report.rows.append(_row(f"{name}, replica", replica, "-"))
    refused = f"{max(sum(kill.refused.values()) for kill in ingress)} of {ingress[0].connects}"
    report.rows.append(_row(f"{name}, ingress", ingress, refused))
    report.raw += [f"{name}: {each}" for each in outcome.results]
    if name != "trygon":
        return
    worst = max(_never(kill) for kill in replica)
    report.checks += [
        Check("replica replaced after", worst, 1.0, "s", is_floor=False),
        Check(
            "replica: failures sent after the kill",
            max(k.num_late_failures for k in replica),
            0,
            is_floor=False,
        ),
        Check(
            "replica: slowest failure", max(k.slowest_failure_s for k in replica), 1.0, "s", is_floor=False
        ),
        Check("hung requests", max(k.num_hung for k in (*replica, *ingress)), 0, is_floor=False),
        Check("ingress: connects refused", max(sum(k.refused.values()) for k in ingress), 0, is_floor=False),
        Check("ingress back to full after", max(_never(kill) for kill in ingress), 1.0, "s", is_floor=False),
    ]


def _never(kill: _Kill) -> float:
    return float("inf") if kill.back_after_s is None else kill.back_after_s


def _row(name: str, kills: Sequence[_Kill], refused: str) -> list[str]:
    worst = max(_never(kill) for kill in kills)
    failures = sum((kill.failures for kill in kills), Counter())
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(failures.items()))
    return [
        name,
        "never" if worst == float("inf") else f"{worst:.2f}",
        str(max(kill.num_sent for kill in kills)),
        str(max(kill.num_in_flight for kill in kills)),
        f"{max(sum(kill.failures.values()) for kill in kills)}"
        + (f" (all rounds: {kinds})" if kinds else ""),
        str(max(kill.num_late_failures for kill in kills)),
        f"{max(kill.slowest_failure_s for kill in kills):.3f}",
        f"{max(kill.slowest_answer_s for kill in kills):.3f}",
        str(max(kill.num_hung for kill in kills)),
        refused,
    ]
