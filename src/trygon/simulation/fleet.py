"""A deployment in virtual time: requests of a trace, replicas that start and leave, and who waits how long.

Requests are served in the order in which they came; a replica works on some at once. Slots of replicas that
were told to leave take nothing new, free ones go first, and each is paid for until its last request ended.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from trygon.scaling.context import LoadSample
from trygon.simulation.trace import Trace

__all__ = ["Outcome", "Policy", "Setup", "run"]


class Policy(Protocol):
    """Decides on the number of replicas, once every `tick_s`."""

    name: str
    tick_s: float

    def start(self) -> int:
        """Return how many replicas there are to begin with."""

    def decide(self, sample: LoadSample, target: int) -> int:
        """Return how many there shall be, after the load of one more tick."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the replicas are like, and what is wanted of them."""

    #: Requests that one replica works on at once.
    slots: int = 1
    #: From the decision to a replica that takes requests.
    cold_start_s: float = 20.0
    min_replicas: int = 1
    max_replicas: int = 1000
    #: The objective: this share of requests waits no longer than `wait_s`.
    wait_s: float = 1.0
    quantile: float = 0.99
    #: Requests before this moment are served but not scored: every policy begins with a guess.
    warm_up_s: float = 300.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy made of a trace."""

    policy: str
    requests: int
    misses: int
    #: The largest share of late requests in a minute of at least twenty.
    worst_minute: float
    wait_p99_s: float
    replica_seconds: float
    scale_changes: int
    #: Requests that waited for a replica that was starting.
    cold_waits: int
    #: Most replicas that worked at once.
    peak: int
    #: Every tick: its end, requests in the system, replicas that work, and replicas that are wanted.
    series: list[tuple[float, float, int, int]]

    @property
    def miss_rate(self) -> float:
        """The share of requests that waited longer than the objective says."""
        return self.misses / self.requests if self.requests else 0.0


def run(
    trace: Trace, policy: Policy, setup: Setup, *, progress: Callable[[int], None] = lambda _: None
) -> Outcome:
    """Serve a trace and return what came of it.

    Args:
        trace: The requests.
        policy: Decides on the number of replicas; must be fresh.
        setup: The replicas.
        progress: Told, now and then, how many requests have come.
    """
    fleet = _Fleet(trace, setup, policy.start())
    target, changes, paid_s, peak = fleet.ready, 0, 0.0, 0
    series: list[tuple[float, float, int, int]] = []
    end, scored = policy.tick_s, max(setup.warm_up_s, 0.0)
    # What waits at the end of the trace is served to the end, but not for ever.
    last = trace.duration_s + 3600.0
    while not fleet.is_done and end <= last:
        cost_s = fleet.cost_until(end)
        sample = fleet.run_until(end)
        is_scored = scored < end <= trace.duration_s + policy.tick_s
        if is_scored:
            paid_s += cost_s()
        peak = max(peak, fleet.ready)
        series.append((end, sample.total, fleet.ready, target))
        wanted = max(setup.min_replicas, min(setup.max_replicas, policy.decide(sample, target)))
        if wanted != target:
            changes += is_scored
            fleet.scale(wanted, end)
            target = wanted
        progress(fleet.come)
        end += policy.tick_s
    return _outcome(trace, policy, setup, fleet, (paid_s, changes, peak, series))


class _Fleet:
    """Slots and requests; all times are those of the trace."""

    def __init__(self, trace: Trace, setup: Setup, ready: int) -> None:
        self._arrivals, self._services, self._setup = trace.arrivals, trace.services, setup
        self.ready = ready
        self.now = 0.0
        #: Requests that came so far, and each one's wait; infinite until it begins.
        self.come = 0
        self.waits = array("d", [math.inf]) * len(trace)
        self.cold_waits = 0
        self._queue: deque[int] = deque()
        self._ends: list[float] = []
        #: Slots that may take a request now, and busy ones that go when their request ended.
        self._free = ready * setup.slots
        self._leaving = 0
        #: Requests whose work began since the last sample.
        self._begun = 0
        #: When those that start are ready, oldest first.
        self._starting: deque[float] = deque()

    @property
    def is_done(self) -> bool:
        return self.come == len(self._arrivals) and not self._queue and not self._ends

    def scale(self, wanted: int, now: float) -> None:
        """Start replicas, or let some leave: those that are not ready yet first."""
        have = self.ready + len(self._starting)
        for _ in range(wanted - have):
            self._starting.append(now + self._setup.cold_start_s)
        leave = have - wanted
        while leave > 0 and self._starting:
            self._starting.pop()
            leave -= 1
        if leave > 0:
            self.ready -= leave
            slots = leave * self._setup.slots
            idle = min(slots, self._free)
            self._free -= idle
            self._leaving += slots - idle

    def cost_until(self, end: float) -> Callable[[], float]:
        """Return a function that tells, after the time has passed, the replica-seconds until then."""
        seconds, slots = end - self.now, self._setup.slots
        before = self.ready + len(self._starting)
        leaving = self._leaving

        def cost() -> float:
            return seconds * (before + (leaving + self._leaving) / 2 / slots)

        return cost

    def run_until(self, end: float) -> LoadSample:
        """Let time pass; return the load as callers report it: means over the time, and counts."""
        begin, come, working = self.now, self.come, len(self._ends)
        queued_s = running_s = 0.0
        while self._starting and self._starting[0] <= end:
            at = self._starting.popleft()
            queued, running = self._pass(at)
            queued_s += queued
            running_s += running
            self.ready += 1
            self._free += self._setup.slots
            self.cold_waits += self._begin_waiting(at)
        queued, running = self._pass(end)
        span_s = end - begin
        waiting = len(self._queue)
        arrivals = self.come - come
        begun = working + self._begun
        self._begun = 0
        return LoadSample(
            at=end,
            queued=(queued_s + queued) / span_s if span_s else float(waiting),
            running=(running_s + running) / span_s if span_s else float(len(self._ends)),
            arrivals=arrivals,
            completions=begun - len(self._ends),
            replicas=self.ready,
        )

    def _pass(self, end: float) -> tuple[float, float]:
        """Serve until a moment at which no replica becomes ready before; return both areas in request-seconds."""
        arrivals, services, ends, queue, waits = (
            self._arrivals,
            self._services,
            self._ends,
            self._queue,
            self.waits,
        )
        i, count, free, begun = self.come, len(arrivals), self._free, 0
        queued_s, running_s = len(queue) * (end - self.now), len(ends) * (end - self.now)
        push, pop, replace = heapq.heappush, heapq.heappop, heapq.heapreplace
        arrival = arrivals[i] if i < count else math.inf
        while True:
            done = ends[0] if ends else math.inf
            if arrival < done:
                if arrival >= end:
                    break
                if free > 0:
                    free -= 1
                    begun += 1
                    waits[i] = 0.0
                    running_s += end - arrival
                    push(ends, arrival + services[i])
                else:
                    queue.append(i)
                    queued_s += end - arrival
                i += 1
                arrival = arrivals[i] if i < count else math.inf
                continue
            if done >= end:
                break
            if queue and not self._leaving:
                first = queue.popleft()
                begun += 1
                waits[first] = done - arrivals[first]
                queued_s -= end - done
                replace(ends, done + services[first])
                continue
            pop(ends)
            running_s -= end - done
            if self._leaving:
                self._leaving -= 1
            else:
                free += 1
        self.come, self._free, self.now = i, free, end
        self._begun += begun
        return queued_s, running_s

    def _begin_waiting(self, now: float) -> int:
        """Begin what waits, while slots are free; return how many that were."""
        number = 0
        while self._free and self._queue:
            first = self._queue.popleft()
            self._free -= 1
            self.waits[first] = now - self._arrivals[first]
            heapq.heappush(self._ends, now + self._services[first])
            number += 1
        self._begun += number
        return number


def _outcome(
    trace: Trace,
    policy: Policy,
    setup: Setup,
    fleet: _Fleet,
    sums: tuple[float, int, int, list[tuple[float, float, int, int]]],
) -> Outcome:
    paid_s, changes, peak, series = sums
    first = next((i for i, at in enumerate(trace.arrivals) if at >= setup.warm_up_s), len(trace))
    waits = fleet.waits[first:]
    minutes: dict[int, list[int]] = {}
    misses = 0
    for at, wait in zip(trace.arrivals[first:], waits, strict=True):
        minute = minutes.setdefault(int(at // 60), [0, 0])
        minute[0] += 1
        if wait > setup.wait_s:
            minute[1] += 1
            misses += 1
    ordered = sorted(waits)
    return Outcome(
        policy=policy.name,
        requests=len(waits),
        misses=misses,
        worst_minute=max((late / all_ for all_, late in minutes.values() if all_ >= 20), default=0.0),
        wait_p99_s=ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0.0,
        replica_seconds=paid_s,
        scale_changes=changes,
        cold_waits=fleet.cold_waits,
        peak=peak,
        series=series,
    )
