"""Tells the controller how much load this process has for each deployment that scales with it.

Nothing runs, and nothing is counted, for other deployments, nor while there is no load: the numbers are those
that pools and links keep anyway. A report is the average over a period; only a request that waits where there
is no replica is told at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from trygon.spec.load import DeploymentLoad
from trygon.spec.routing import RoutingTable

__all__ = ["LoadLink", "LoadPool", "LoadReporter"]

#: Looks that make up one report.
_LOOKS = 4

_Key = tuple[str, str]


class LoadLink(Protocol):
    """What is known of the connection to one replica."""

    @property
    def replica_id(self) -> str:
        """Whose it is."""

    @property
    def ongoing(self) -> int:
        """Requests in work."""

    @property
    def num_begun(self) -> int:
        """Requests that the replica was sent and did not reject; only grows."""


class LoadPool(Protocol):
    """One revision of a deployment as this process sees it."""

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a replica."""

    @property
    def links(self) -> Iterable[LoadLink]:
        """Its replicas that stay."""


class _Tally:
    """What was seen of one deployment since the last report."""

    def __init__(self) -> None:
        self.num_looks = 0
        self.queued = 0
        self.running = 0
        #: Requests begun so far by replica, as of the last report.
        self.begun: dict[str, int] = {}
        #: Requests that waited and were in work when the last report was made.
        self.were_queued = 0
        self.were_running = 0
        #: True while the last report was not one of zeros.
        self.is_known = False
        self.reported_at = 0.0


class LoadReporter:
    """Reports of one process.

    Args:
        loop: Where everything here runs.
        pools: Returns the pools of a deployment, those of older revisions included.
        send: Takes the reports of one moment; may lose them.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pools: Callable[[str, str], list[LoadPool]],
        send: Callable[[tuple[DeploymentLoad, ...]], None],
    ) -> None:
        self._loop = loop
        self._pools = pools
        self._send = send
        #: Of the deployments that scale with their load.
        self._tallies: dict[_Key, _Tally] = {}
        self._period_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._looks_left = _LOOKS
        self._is_hurrying = False

    def apply(self, table: RoutingTable) -> None:
        """Report of what this table asks for, from now on."""
        asked = {(t.app_name, t.name): t.load_period_s for t in table.deployments if t.load_period_s > 0}
        if asked.keys() != self._tallies.keys():
            self._tallies = {key: self._tallies.get(key) or _Tally() for key in asked}
        self._period_s = min(asked.values(), default=0.0)
        if asked:
            self.wake()

    def close(self) -> None:
        """Report no more."""
        self._tallies = {}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake(self) -> None:
        """Begin to look, because some request came; cheap when it looks already."""
        if self._timer is None and self._tallies:
            now = self._loop.time()
            for key, tally in self._tallies.items():
                self._settle(key, tally, now)
            self._again()

    def hurry(self) -> None:
        """Report in this turn of the loop: a request waits where no replica is."""
        if self._tallies and not self._is_hurrying:
            self._is_hurrying = True
            self._loop.call_soon(self._report_at_once)

    def _report_at_once(self) -> None:
        self._is_hurrying = False
        self._look()
        self._report()
        if self._timer is None:
            self._again()

    def _again(self) -> None:
        self._timer = self._loop.call_later(self._period_s / _LOOKS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._tallies:
            return
        self._look()
        self._looks_left -= 1
        if self._looks_left > 0 or self._report():
            self._again()

    def _look(self) -> None:
        for key, tally in self._tallies.items():
            queued, running = self._count(key)
            tally.num_looks += 1
            tally.queued += queued
            tally.running += running

    def _count(self, key: _Key) -> tuple[int, int]:
        pools = self._pools(*key)
        return sum(p.num_waiting for p in pools), sum(link.ongoing for p in pools for link in p.links)

    def _report(self) -> bool:
        """Send what there is to tell; return whether there is more to come."""
        self._looks_left = _LOOKS
        now = self._loop.time()
        loads = []
        is_busy = False
        for key, tally in self._tallies.items():
            load = self._load(key, tally, now)
            if tally.is_known or not load.is_idle:
                loads.append(load)
            tally.is_known = not load.is_idle
            is_busy = is_busy or tally.is_known
        if loads:
            self._send(tuple(loads))
        return is_busy

    def _load(self, key: _Key, tally: _Tally, now: float) -> DeploymentLoad:
        period_s = now - tally.reported_at
        looks = max(1, tally.num_looks)
        queued, running = tally.queued / looks, tally.running / looks
        before = tally.were_queued, tally.were_running
        begun, replicas = self._settle(key, tally, now)
        return DeploymentLoad(
            app_name=key[0],
            deployment=key[1],
            queued=queued,
            running=running,
            arrivals=max(0, begun + tally.were_queued - before[0]),
            completions=max(0, begun + before[1] - tally.were_running),
            period_s=period_s,
            replicas=replicas,
        )

    def _settle(self, key: _Key, tally: _Tally, now: float) -> tuple[int, dict[str, int]]:
        """Begin a new period; return how many requests were begun in the last one, and where some are in work."""
        links = [link for pool in self._pools(*key) for link in pool.links]
        begun = {link.replica_id: link.num_begun for link in links}
        # A link that was made anew counts from nothing.
        new = sum(
            count - before if count >= (before := tally.begun.get(replica_id, 0)) else count
            for replica_id, count in begun.items()
        )
        tally.begun = begun
        tally.were_queued, tally.were_running = self._count(key)
        tally.num_looks = tally.queued = tally.running = 0
        tally.reported_at = now
        return new, {link.replica_id: link.ongoing for link in links if link.ongoing}
