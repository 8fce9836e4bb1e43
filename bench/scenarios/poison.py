"""Two requests a second that kill the replica they touch, beside healthy ones."""

from __future__ import annotations

import threading
import time

from bench.apps.serve_faults import Worker
from bench.instance import Instance, running_instance
from bench.load import Target
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.table import Check, Report
from bench.traffic import Traffic, half_capacity, mixed
from bench.wrk import require_wrk, wrk_version
from trygon import serve

__all__ = ["run_poison"]

_REPLICAS = 4
#: Two kinds of poison: they come in turn, so that each is met every second.
_POISON = (Target("poison one", "/?die=1", 1.0), Target("poison two", "/?die=2", 1.0, False, True))
_LOOK_S = 0.02
_COLUMNS = ("requests", "sent", "failed", "worst second", "replicas lost")


def run_poison(settings: Settings) -> Report:
    """Send poison, and tell what the healthy requests and the replicas suffered."""
    require_wrk()
    report = Report("poison", "Two requests a second that end their replica, 4 replicas, half load", _COLUMNS)
    report.venvs.append("main")
    report.commands.append("scripts/bench poison")
    warn_if_busy(report)
    say("poison: os._exit twice a second")
    length_s = settings.length_s(full=60, quick=8)
    report.facts = [f"{length_s:g} s, one run", wrk_version()]
    with running_instance() as instance:
        serve.run(Worker.options(num_replicas=_REPLICAS).bind(0))
        rps = half_capacity(instance.port, settings)
        targets = [*mixed(rps, with_posts=True), *_POISON]
        with _Deaths(instance) as deaths, Traffic(instance.port, targets) as traffic:
            time.sleep(length_s)
    seen = traffic.seen
    gets, posts = seen.of("get", "get-new"), seen.of("post", "post-new")
    poison = [seen.of(target.name) for target in _POISON]
    worst = seen.of("get", "get-new", "post", "post-new").worst_second
    for name, part in (("healthy GETs", gets), ("healthy POSTs", posts)):
        report.rows.append([name, str(len(part.samples)), part.kinds, f"{worst:.0%}", "-"])
    for target, part in zip(_POISON, poison, strict=True):
        report.rows.append([f"{target.name}: {target.text()}", str(len(part.samples)), part.kinds, "-", "-"])
    report.rows.append(["all", str(len(seen.samples)), seen.kinds, "-", str(len(deaths.moments))])
    unexplained = sum(
        not any(sample.at <= death and sample.ended_at >= death - 2 * _LOOK_S for death in deaths.moments)
        for sample in posts.failed
    )
    report.checks += [
        Check("healthy GETs that failed", len(gets.failed), 0, is_floor=False),
        Check("healthy POSTs that failed without a death near", unexplained, 0, is_floor=False),
        Check("replicas that a kind of poison cost", len(deaths.moments) / len(_POISON), 2, is_floor=False),
    ]
    report.notes += [
        "two kinds of poison, each once a second; replicas lost: processes that were there and are not any more",
        "without a death near: not on its way when a replica was seen to be gone, which is looked at every 20 ms",
    ]
    return report


class _Deaths:
    """Notes the replicas that end, by looking which there are every 20 ms."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._there = instance.pids("replica")
        #: When each was seen to be gone.
        self.moments: list[float] = []

    def __enter__(self) -> _Deaths:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            there = self._instance.pids("replica")
            self.moments += [time.monotonic()] * len(self._there - there)
            self._there = there
