"""Before the queue of one deployment at an ingress: who may wait there, and for how long.

Handles have none: what a program sends itself waits until it is done, unless `max_queued_requests` says otherwise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from trygon.dataplane.admission import (
    DEFAULT_WAIT_S,
    DrainRate,
    Pace,
    queue_bound,
    retry_after_s,
    wait_is_too_long,
)
from trygon.dataplane.fairness import PLAIN, FairQueue, Ticket
from trygon.dataplane.gateway import Failure
from trygon.dataplane.links import Call
from trygon.dataplane.messages import HttpMeta
from trygon.errors import QueueWaitError
from trygon.spec.queueing import QueuePolicy
from trygon.spec.routing import DeploymentTargets

__all__ = ["Gate", "GateStatistics", "GatedQueue"]

#: Of a tenant's name as much as this counts; clients choose it.
_MAX_KEY_CHARS = 128
#: A refusal is made once for each number of seconds that it names.
_MAX_KEPT_REFUSALS = 256

_randbits = random.getrandbits


class GatedQueue(Protocol):
    """The pool behind a gate."""

    @property
    def num_queued(self) -> int:
        """How many wait."""

    @property
    def num_slots(self) -> int:
        """Requests that the replicas together work on at a time."""

    @property
    def pace(self) -> Pace:
        """How many requests a second are served, whatever the revision."""

    @property
    def fair_queue(self) -> FairQueue[Call] | None:
        """The queue, when tenants take turns in it."""

    def withdraw(self, call: Call) -> None:
        """Forget a request that waits."""


class GateStatistics(msgspec.Struct, frozen=True):
    """What a gate did, and what it knows."""

    #: Requests that were refused because too many waited, the evicted ones among them.
    num_refused: int
    #: Requests of a longer queue that went for those of a shorter one.
    num_evicted: int
    #: Requests that were refused because they would not have made their deadline.
    num_hopeless: int
    #: Requests whose time ran out while they waited.
    num_expired: int
    #: Requests a second that left the queue while some waited; None when nothing was measured.
    drain_per_s: float | None
    #: How many may wait.
    bound: int


class Gate:
    """Measures how fast the queue drains, and refuses what would wait too long."""

    __slots__ = (
        "_max_wait_s",
        "_policy",
        "_rate",
        "_refusals",
        "_retry_after_s",
        "_status",
        "is_fair",
        "now",
        "num_evicted",
        "num_expired",
        "num_hopeless",
        "num_refused",
    )

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._rate = DrainRate()
        self._policy = QueuePolicy()
        self._max_wait_s = DEFAULT_WAIT_S
        self._status = 503
        #: What the operator wants refused clients to be told, instead of what was measured.
        self._retry_after_s: float | None = None
        self._refusals: dict[float, Failure] = {}
        #: Whether requests have tickets.
        self.is_fair = False
        self.num_refused = 0
        self.num_evicted = 0
        self.num_hopeless = 0
        self.num_expired = 0

    def configure(self, targets: DeploymentTargets) -> None:
        """Follow what the routing table says of the deployment."""
        policy = self._policy = targets.queue
        self.is_fair = policy.is_fair
        max_wait_s = policy.max_wait_s
        if max_wait_s is None:
            max_wait_s = DEFAULT_WAIT_S if targets.max_queued_requests < 0 else math.inf
        self._max_wait_s = max_wait_s if max_wait_s > 0 else math.inf
        self._status = targets.backpressure_status_code
        self._retry_after_s = targets.backpressure_retry_after_s
        self._refusals.clear()

    # ---- what happens to the queue

    def begin(self) -> None:
        """The first request waits, and a replica is there."""
        self._rate.begin(self.now())

    def pause(self) -> None:
        """No replica is there."""
        self._rate.pause()

    def may_start(self, call: Call) -> bool:
        """Count a request that leaves the queue; one that is too late is told so, and must not start."""
        now = self.now()
        if 0.0 < call.due <= now:
            self.num_expired += 1
            call.on_refused(TimeoutError("request timed out while it waited for a replica"))
            return False
        self._rate.leave(now)
        return True

    def undo_start(self) -> None:
        """A replica did not take what left the queue."""
        self._rate.undo()

    # ---- newcomers

    def ticket(self, meta: HttpMeta) -> Ticket:
        """Return where a request stands in a fair queue."""
        policy = self._policy
        key, priority = "", 0
        if policy.fairness_key:
            key = _said(policy.fairness_key, meta, meta.headers)[:_MAX_KEY_CHARS]
        if policy.priority:
            priority = policy.priorities.get(_said(policy.priority, meta, meta.headers).lower(), 0)
        return (priority, key) if key or priority else PLAIN

    def refusal(self, queue: GatedQueue, timeout_s: float, ticket: Ticket) -> Failure | None:
        """Return the answer to a request that may not wait; None lets it in.

        In a fair queue it may be another that goes, which is told so here.

        Args:
            queue: Where it would wait, and others do.
            timeout_s: Seconds until its deadline; 0 is none.
            ticket: Where it would stand.
        """
        rate = self._rate.per_s(self.now())
        num_queued = queue.num_queued
        fair = queue.fair_queue
        if timeout_s > 0.0:
            num_ahead = num_queued if fair is None else fair.num_ahead(ticket)
            if wait_is_too_long(num_ahead, rate, timeout_s):
                self.num_hopeless += 1
                after_s = self._after_s(num_queued, rate)
                return Failure(503, _HOPELESS % timeout_s, after_s)
        if num_queued < self._bound(rate, queue):
            return None
        self.num_refused += 1
        victim = fair.victim_for(ticket) if fair is not None else None
        if victim is None:
            return self._full(self._after_s(num_queued, rate))
        self.num_evicted += 1
        queue.withdraw(victim)
        victim.on_refused(QueueWaitError(self._max_wait_s, self._status, self._after_s(num_queued, rate)))
        return None

    def full(self, queue: GatedQueue) -> Failure | None:
        """Return the answer to a newcomer that is refused whoever it is, None when that depends or there is room."""
        if queue.fair_queue is not None:
            return None
        rate, num_queued = self._rate.per_s(self.now()), queue.num_queued
        if num_queued < self._bound(rate, queue):
            return None
        self.num_refused += 1
        return self._full(self._after_s(num_queued, rate))

    def retry_after_s(self, num_queued: int) -> float:
        """Return what a client that is refused now is told to wait."""
        return self._after_s(num_queued, self._rate.per_s(self.now()))

    def statistics(self, queue: GatedQueue) -> GateStatistics:
        """Return what was done, and what is known."""
        rate = self._rate.per_s(self.now(), is_waiting=queue.num_queued > 0)
        return GateStatistics(
            self.num_refused,
            self.num_evicted,
            self.num_hopeless,
            self.num_expired,
            rate,
            self._bound(rate, queue),
        )

    def _bound(self, rate: float | None, queue: GatedQueue) -> int:
        return queue_bound(rate, queue.num_slots, self._max_wait_s, queue.pace.per_s(self.now()))

    def _after_s(self, num_queued: int, rate: float | None) -> float:
        if self._retry_after_s is not None:
            return self._retry_after_s
        return retry_after_s(num_queued, rate, _randbits(16))

    def _full(self, after_s: float) -> Failure:
        """Return the answer of a full queue, made before: at ten times the load nine of ten answers are this one."""
        failure = self._refusals.get(after_s)
        if failure is None:
            if len(self._refusals) >= _MAX_KEPT_REFUSALS:
                self._refusals.clear()
            text = QueueWaitError(self._max_wait_s).message
            failure = self._refusals[after_s] = Failure(self._status, text, after_s)
        return failure


_HOPELESS = "request dropped due to backpressure: it would wait longer than the %.3g s that it has"


def _said(source: str, meta: HttpMeta, headers: Sequence[tuple[bytes, bytes]]) -> str:
    """Return what a request says of itself under `source`."""
    if source == "client":
        return meta.client[0] if meta.client is not None else ""
    wanted = source.partition(":")[2].encode("latin-1")
    for name, value in headers:
        if name == wanted:
            return value.decode("latin-1")
    return ""
