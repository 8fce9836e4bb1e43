"""Requests whose replica died: which are sent again, which wait until it is known why, and which are refused.

A desk belongs to one pool. It is made by the first death, and stands in the way of requests only while some kind of
them is suspect (`dataplane.poison`); until then no request is looked at, hashed or wrapped.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol

from trygon.dataplane.admission import RetryBudget
from trygon.dataplane.fairness import CallQueue
from trygon.dataplane.held import Guests, Held
from trygon.dataplane.links import Call, ReplicaLink, Withdrawable
from trygon.dataplane.poison import MAX_DEATHS, PoisonLedger, Verdict
from trygon.dataplane.routing.parking import PoolRouter
from trygon.dataplane.stamps import monotonic
from trygon.dataplane.tracked import Tracked
from trygon.errors import BackPressureError, PoisonRequestError
from trygon.spec.routing import DeathCause, ReplicaDeath

__all__ = ["MAX_HELD", "REPLAY_WAIT_S", "DeskPool", "ReplayDesk"]

#: Requests of suspect kinds that may wait here; the lost ones were in work, so many they are not.
MAX_HELD = 1024
#: A suspect that lost its replica waits for a second one to be there, as long as a replacement may take to be tried.
REPLAY_WAIT_S = 10.0
#: Replays in 10 seconds that need no other requests to have earned them, as many as one replica works on at least.
MIN_REPLAYS = 10


class DeskPool(Withdrawable, Protocol):
    """The pool a desk belongs to."""

    key: tuple[str, str, int]
    links: list[ReplicaLink]
    #: Requests that wait for any replica, before those that were never sent; and since when.
    returned: OrderedDict[Call, float]
    waiting: CallQueue[Call]
    #: Most replicas there ever were.
    num_replicas: int
    #: The desk, while it takes every request.
    desk: ReplayDesk | None
    #: Says who takes a request, where that is not power of two choices.
    router: PoolRouter | None

    @property
    def max_ongoing_requests(self) -> int:
        """Requests that one replica works on at a time."""

    @property
    def num_started(self) -> int:
        """Requests ever sent to a replica."""

    def place(self, links: Sequence[ReplicaLink], model_id: str) -> ReplicaLink | None:
        """Return the link of `links` that takes a request for a model, or for none; None if it has to wait."""

    def pump(self) -> None:
        """Start what waits."""

    def take_waiting(self) -> list[Call]:
        """Return what waits, and let nothing wait."""

    def pick(self, links: Sequence[ReplicaLink], call: Call) -> ReplicaLink | None:
        """Return who of `links` takes `call` at once."""

    def is_unavailable(self, call: Call) -> bool:
        """Refuse `call` if no replica will come."""

    def is_over_bound(self, call: Call) -> bool:
        """Refuse `call` if too many wait."""


class ReplayDesk:
    """Takes the requests of one pool from a death on until nothing is suspect any more."""

    __slots__ = (
        "_budget",
        "_due",
        "_guests",
        "_held",
        "_is_closed",
        "_is_pumping",
        "_ledger",
        "_loop",
        "_pool",
        "_timer",
    )

    def __init__(self, pool: DeskPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._ledger = PoisonLedger()
        #: Bounds what deaths add to the load.
        self._budget = RetryBudget()
        self._held = Held()
        self._guests = Guests()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._is_pumping = False
        self._is_closed = False

    @property
    def num_held(self) -> int:
        """How many requests wait here."""
        return self._held.count

    # ---- what happens

    def take_lost(self, replica_id: str, calls: Iterable[Call]) -> None:
        """Take what was in work on a replica that is gone."""
        now = self._loop.time()
        kept, failed, kinds = self._sort(calls)
        self._ledger.lose(replica_id, kinds, now)
        self._keep(kept, replica_id, failed, now)
        self._settle()
        for call in failed:
            call.on_lost(replica_id)
        self._look_again_at_waiting(now)
        self.pump()

    def fail_lost(self, replica_id: str, calls: Iterable[Call]) -> list[Call]:
        """Fail what was lost and may not be sent again; return the rest. For a pool that is closed."""
        kept, failed, _ = self._sort(calls)
        for call in failed:
            call.on_lost(replica_id)
        for tracked in kept:
            tracked.is_replay = True
            tracked.replica_id = replica_id
            tracked.call.on_moved(tracked)
        return list(kept)

    def _sort(self, calls: Iterable[Call]) -> tuple[list[Tracked], list[Call], set[bytes]]:
        """Return what may be sent again, what may not, and the kinds that may have ended the replica."""
        kept: list[Tracked] = []
        failed: list[Call] = []
        least = max(self._pool.max_ongoing_requests, MIN_REPLAYS)
        self._budget.earn(self._pool.num_started, least, self._loop.time())
        trials: set[bytes] = set()
        waiting: set[bytes] = set()
        begun: set[bytes] = set()
        for call in calls:
            tracked = call if isinstance(call, Tracked) else None
            inner = tracked.call if tracked is not None else call
            evidence = inner.evidence()
            if tracked is not None:
                self._leave(tracked)
            if evidence is None or evidence.kind is None:
                failed.append(inner)
                continue
            if tracked is not None and tracked.was_trial:
                trials.add(evidence.kind)
            else:
                (begun if evidence.has_begun else waiting).add(evidence.kind)
            was_sent_again = tracked is not None and tracked.is_replay
            if evidence.is_retryable and not was_sent_again and self._budget.spend():
                kept.append(tracked or Tracked(self, inner, evidence.kind))
            else:
                failed.append(inner)
        return kept, failed, self._ledger.blame(trials, waiting, begun)

    def _keep(self, kept: list[Tracked], replica_id: str, failed: list[Call], now: float) -> None:
        for tracked in kept:
            if self.num_held >= MAX_HELD:
                failed.append(tracked.call)
                continue
            tracked.desk = self
            tracked.is_replay = True
            tracked.was_trial = False
            tracked.replica_id = replica_id
            tracked.until = now + REPLAY_WAIT_S
            tracked.link = None
            tracked.where = None
            tracked.call.on_moved(tracked)
            self._held.add(tracked)

    def _look_again_at_waiting(self, now: float) -> None:
        """Judge what was waiting before this death."""
        for call in self._pool.take_waiting():
            tracked = self._track(call)
            if tracked is None:
                self._pool.waiting[call] = monotonic()
            elif tracked.is_replay or self._ledger.judge(tracked.kind, now) is not Verdict.PASS:
                self._held.add(tracked)
            else:
                self._pool.waiting[tracked] = monotonic()

    def explain(self, deaths: Iterable[ReplicaDeath]) -> None:
        """Hear why replicas died."""
        now = self._loop.time()
        for death in deaths:
            self._ledger.explain(death.replica_id, now, is_own=death.cause is not DeathCause.OUTSIDE)
        self.pump()

    def leave(self, tracked: Tracked) -> None:
        """Let others have its replica: it is over, or its answer has begun."""
        if self._leave(tracked) and self._held:
            self.pump()

    def _leave(self, tracked: Tracked) -> bool:
        if tracked.is_trial:
            tracked.is_trial = False
            self._ledger.end_try(tracked.kind)
        return self._guests.discard(tracked)

    def end(self, tracked: Tracked, *, is_done: bool) -> None:
        """Hear that a request is over; done, it clears its kind."""
        has_left = self._leave(tracked)
        if is_done:
            self._ledger.complete(tracked.kind)
        if (is_done or has_left) and self._pool.desk is self:
            self.pump()

    def withdraw(self, tracked: Tracked) -> None:
        """Forget a request that its caller gave up."""
        self._held.discard(tracked)
        self.end(tracked, is_done=False)
        self._settle()

    def take_held(self) -> list[Call]:
        """Return what waits here, and hold nothing."""
        return self._held.take_all()

    def close(self) -> list[Call]:
        """Stop; return what waits here."""
        self._is_closed = True
        self._pool.desk = None
        if self._timer is not None:
            self._timer.cancel()
        return self.take_held()

    # ---- requests

    def admit(self, call: Call) -> tuple[Call, list[ReplicaLink]] | None:
        """Return a request that may be sent, and to whom; None when it is held or refused."""
        tracked = self._track(call)
        if tracked is None:
            return call, self._pool.links
        now = self._loop.time()
        verdict = self._ledger.judge(tracked.kind, now)
        if verdict is Verdict.REFUSE:
            self._refuse(tracked, now)
        elif verdict is Verdict.PASS and not tracked.is_replay:
            return tracked, self._guests.quiet(self._pool.links)
        elif self.num_held >= MAX_HELD:
            tracked.call.on_refused(BackPressureError(self.num_held, MAX_HELD))
        elif not self._pool.is_over_bound(tracked):
            self._held.add(tracked)
            self.pump()
        return None

    def take_back(self, call: Call) -> bool:
        """Take a request that a full replica did not take; False when it is none of the desk's."""
        tracked = self._track(call)
        if tracked is None:
            return False
        self._leave(tracked)
        if tracked.is_replay or not self._pool.is_over_bound(tracked):
            self._held.add(tracked, first=True)
            self.pump()
        return True

    def _track(self, call: Call) -> Tracked | None:
        if isinstance(call, Tracked):
            call.desk = self
            return call
        evidence = call.evidence()
        if evidence is None or evidence.kind is None:
            return None
        tracked = Tracked(self, call, evidence.kind)
        tracked.on_moved(self._pool)
        return tracked

    def _refuse(self, tracked: Tracked, now: float) -> None:
        if tracked.is_replay:
            tracked.call.on_lost(tracked.replica_id)
        else:
            after_s = self._ledger.retry_after_s(tracked.kind, now)
            tracked.call.on_refused(PoisonRequestError(self._pool.key[1], MAX_DEATHS, after_s))

    # ---- placing

    def pump(self) -> None:
        """Send, refuse or keep what waits here."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            now = self._loop.time()
            self._ledger.expire(now)
            for kind in self._held.kinds():
                self._pump_kind(kind, now)
        finally:
            self._is_pumping = False
        self._settle()

    def _pump_kind(self, kind: bytes, now: float) -> None:
        # Looked up each time: what is told to one may have ended another, or cleared its kind.
        while queue := self._held.of(kind):
            verdict = self._ledger.judge(kind, now)
            if verdict is Verdict.WAIT:
                return
            if verdict is Verdict.TRY:
                self._try(queue, now)
                return
            tracked = next(iter(queue))
            if verdict is Verdict.REFUSE:
                self._held.discard(tracked)
                self._refuse(tracked, now)
            elif self._pool.is_unavailable(tracked):
                self._held.discard(tracked)
            elif not self._send(tracked):
                return

    def _try(self, queue: OrderedDict[Tracked, None], now: float) -> None:
        """Run one suspect where no other guest is; one that has cost a replica not on the last of several."""
        candidate: Tracked | None = next(iter(queue))
        num_open = sum(link.is_open and not link.is_leaving for link in self._pool.links)
        if num_open < 2 and self._pool.num_replicas > 1:
            candidate = next((tracked for tracked in queue if not tracked.is_replay), None)
            for tracked in [tracked for tracked in queue if tracked.is_replay and now >= tracked.until]:
                self._held.discard(tracked)
                tracked.call.on_lost(tracked.replica_id)
        # One that is told of its loss may have ended another.
        if candidate is None or candidate not in queue:
            return
        link = self._pool.pick(self._guests.without_any(self._pool.links), candidate)
        if link is not None:
            self._held.discard(candidate)
            candidate.is_trial = candidate.was_trial = True
            self._ledger.begin_try(candidate.kind)
            self._guests.add(candidate, link)
            link.begin(candidate)
        elif self._pool.is_unavailable(candidate):
            self._held.discard(candidate)

    def _send(self, tracked: Tracked) -> bool:
        """Send what nothing is known against, a replay only where no suspect is; False when it has to wait here."""
        if tracked.is_replay:
            open_links = self._guests.without_trials(self._pool.links)
            if self._ask_router(tracked, open_links):
                return True
            link = self._pool.pick(open_links, tracked)
            if link is None:
                return False
            self._guests.add(tracked, link)
        elif self._ask_router(tracked, self._guests.quiet(self._pool.links)):
            return True
        else:
            link = self._pool.pick(self._guests.quiet(self._pool.links), tracked)
        self._held.discard(tracked)
        if link is not None:
            link.begin(tracked)
        else:
            tracked.on_moved(self._pool)
            self._pool.returned[tracked] = monotonic()
            if self._pool.router is not None:
                self._pool.router.requeue(tracked)
        return True

    def _ask_router(self, tracked: Tracked, links: list[ReplicaLink]) -> bool:
        """Give a request to a router of the user's, which says later who takes it; False when there is none."""
        router = self._pool.router
        if router is None or not router.is_asking or not links:
            return False
        self._held.discard(tracked)
        tracked.on_moved(self._pool)
        router.submit(tracked, links)
        return True

    def host(self, tracked: Tracked, link: ReplicaLink) -> None:
        """Note where a replay went."""
        self._guests.add(tracked, link)

    # ---- when to look again

    def _settle(self) -> None:
        """Take part as long as it is needed, and wake up when something changes by itself."""
        if self._is_closed:
            return
        is_needed = bool(self._held) or not self._ledger.is_empty
        self._pool.desk = self if is_needed else None
        now = self._loop.time()
        dues = list(self._held.dues(now))
        due = self._ledger.next_due(now)
        if due is not None:
            dues.append(due)
        earliest = min(dues, default=0.0) if is_needed else 0.0
        if earliest == self._due and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = earliest
        self._timer = self._loop.call_at(earliest, self._wake) if earliest else None

    def _wake(self) -> None:
        self._timer = None
        self.pump()
