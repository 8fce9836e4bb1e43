"""Requests whose replica died: which are sent again, which wait until it is known why, and which are refused.

A desk belongs to one pool. It is made by the first death, and stands in the way of requests only while some kind of
them is suspect (`dataplane.poison`); until then no request is looked at, hashed or wrapped.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from trygon.dataplane.admission import RetryBudget
from trygon.dataplane.fairness import CallQueue, Ticket
from trygon.dataplane.frames import FrameFlag, FrameKind
from trygon.dataplane.links import Call, ReplicaLink, Withdrawable
from trygon.dataplane.messages import ErrorKind, Evidence
from trygon.dataplane.poison import MAX_DEATHS, PoisonLedger, Verdict
from trygon.dataplane.routing.parking import PoolRouter
from trygon.dataplane.stamps import monotonic
from trygon.errors import BackPressureError, PoisonRequestError
from trygon.spec.routing import DeathCause, ReplicaDeath

__all__ = ["MAX_HELD", "REPLAY_WAIT_S", "DeskPool", "ReplayDesk"]

#: Requests of suspect kinds that may wait here; the lost ones were in work, so many they are not.
MAX_HELD = 1024
#: A suspect that lost its replica waits for a second one to be there, as long as a replacement may take to be tried.
REPLAY_WAIT_S = 10.0
#: Replays in 10 seconds that need no other requests to have earned them, as many as one replica works on at least.
MIN_REPLAYS = 10

_MORE = int(FrameFlag.MORE)
_CREDIT = int(FrameKind.CREDIT)
_ERROR = int(FrameKind.ERROR)
#: The replica did not say what became of the request.
_UNDONE = (int(ErrorKind.CANCELLED), int(ErrorKind.TIMEOUT), int(ErrorKind.UNAVAILABLE))


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


class _Tracked:
    """Stands between a call and its link while its kind is of interest, to see how it ends.

    Towards the link it is the call, towards the call it is the link and the place where it waits.
    """

    __slots__ = (
        "call",
        "desk",
        "is_replay",
        "is_trial",
        "kind",
        "link",
        "replica_id",
        "until",
        "was_trial",
        "where",
    )

    def __init__(self, desk: ReplayDesk, call: Call, kind: bytes) -> None:
        self.desk = desk
        self.call = call
        self.kind = kind
        self.link: ReplicaLink | None = None
        #: Where it waits outside of the desk.
        self.where: Withdrawable | None = None
        #: Sent for the second time; never for a third.
        self.is_replay = False
        #: Under way as the only one of a suspect kind, its answer not begun.
        self.is_trial = False
        self.was_trial = False
        #: Of a replay: who died with it, and how long it may wait for a second replica.
        self.replica_id = ""
        self.until = 0.0

    # ---- links.Call

    @property
    def model_id(self) -> str:
        return self.call.model_id

    @property
    def session_id(self) -> str:
        return self.call.session_id

    def question(self) -> tuple[bool, bytes, bytes]:
        return self.call.question()

    @property
    def ticket(self) -> Ticket:
        return self.call.ticket

    @property
    def due(self) -> float:
        return self.call.due

    def start(self, link: ReplicaLink, stream: int) -> None:
        self.link = link
        if self.is_replay:
            self.desk.host(self, link)
        # What a call asks of its link is answered below.
        self.call.start(cast("ReplicaLink", self), stream)

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        self.call.on_frame(kind, flags, status, head, body)
        if kind == _CREDIT:
            return
        if flags & _MORE:
            self.desk.leave(self)
        else:
            self.desk.end(self, is_done=kind != _ERROR or status not in _UNDONE)

    def on_moved(self, pool: Withdrawable) -> None:
        self.link = None
        self.where = pool
        self.call.on_moved(self)

    def on_lost(self, replica_id: str) -> None:
        self.call.on_lost(replica_id)
        self.desk.end(self, is_done=False)

    def on_refused(self, error: Exception) -> None:
        self.call.on_refused(error)
        self.desk.end(self, is_done=False)

    def evidence(self) -> Evidence | None:
        return self.call.evidence()

    # ---- what the call asks of its link

    @property
    def is_paused(self) -> bool:
        return self.link is not None and self.link.is_paused

    def send(self, frame: bytes) -> None:
        if self.link is not None:
            self.link.send(frame)

    def cancel(self, stream: int) -> None:
        if self.link is not None:
            self.link.cancel(stream)
        self.desk.end(self, is_done=False)

    def forget(self, stream: int) -> None:
        if self.link is not None:
            self.link.forget(stream)
        self.desk.end(self, is_done=False)

    # ---- Withdrawable

    def withdraw(self, call: Call) -> None:
        del call  # its own
        self.desk.withdraw(self)
        if self.where is not None:
            self.where.withdraw(self)


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
        "num_held",
    )

    def __init__(self, pool: DeskPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._ledger = PoisonLedger()
        #: Bounds what deaths add to the load.
        self._budget = RetryBudget()
        #: What waits for a verdict or for a replica without other guests, by kind, oldest first. By kind, because
        #: one verdict is for all of it: a thousand that wait must not be looked at for each answer of another.
        self._held: dict[bytes, OrderedDict[_Tracked, None]] = {}
        #: How many these are.
        self.num_held = 0
        #: Trials and replays under way without an answer. A trial is alone on its replica, or it would take a
        #: replay with it, which is not sent a third time.
        self._guests: dict[_Tracked, ReplicaLink] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._is_pumping = False
        self._is_closed = False

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

    def _sort(self, calls: Iterable[Call]) -> tuple[list[_Tracked], list[Call], set[bytes]]:
        """Return what may be sent again, what may not, and the kinds that may have ended the replica."""
        kept: list[_Tracked] = []
        failed: list[Call] = []
        least = max(self._pool.max_ongoing_requests, MIN_REPLAYS)
        self._budget.earn(self._pool.num_started, least, self._loop.time())
        trials: set[bytes] = set()
        waiting: set[bytes] = set()
        begun: set[bytes] = set()
        for call in calls:
            tracked = call if isinstance(call, _Tracked) else None
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
                kept.append(tracked or _Tracked(self, inner, evidence.kind))
            else:
                failed.append(inner)
        return kept, failed, self._ledger.blame(trials, waiting, begun)

    def _keep(self, kept: list[_Tracked], replica_id: str, failed: list[Call], now: float) -> None:
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
            self._hold(tracked)

    def _look_again_at_waiting(self, now: float) -> None:
        """Judge what was waiting before this death."""
        for call in self._pool.take_waiting():
            tracked = self._track(call)
            if tracked is None:
                self._pool.waiting[call] = monotonic()
            elif tracked.is_replay or self._ledger.judge(tracked.kind, now) is not Verdict.PASS:
                self._hold(tracked)
            else:
                self._pool.waiting[tracked] = monotonic()

    def explain(self, deaths: Iterable[ReplicaDeath]) -> None:
        """Hear why replicas died."""
        now = self._loop.time()
        for death in deaths:
            self._ledger.explain(death.replica_id, now, is_own=death.cause is not DeathCause.OUTSIDE)
        self.pump()

    def leave(self, tracked: _Tracked) -> None:
        """Let others have its replica: it is over, or its answer has begun."""
        if self._leave(tracked) and self._held:
            self.pump()

    def _leave(self, tracked: _Tracked) -> bool:
        if tracked.is_trial:
            tracked.is_trial = False
            self._ledger.end_try(tracked.kind)
        return self._guests.pop(tracked, None) is not None

    def end(self, tracked: _Tracked, *, is_done: bool) -> None:
        """Hear that a request is over; done, it clears its kind."""
        has_left = self._leave(tracked)
        if is_done:
            self._ledger.complete(tracked.kind)
        if (is_done or has_left) and self._pool.desk is self:
            self.pump()

    def withdraw(self, tracked: _Tracked) -> None:
        """Forget a request that its caller gave up."""
        self._unhold(tracked)
        self.end(tracked, is_done=False)
        self._settle()

    def take_held(self) -> list[Call]:
        """Return what waits here, and hold nothing."""
        held: list[Call] = [tracked for queue in self._held.values() for tracked in queue]
        self._held.clear()
        self.num_held = 0
        return held

    def _hold(self, tracked: _Tracked, *, first: bool = False) -> None:
        queue = self._held.setdefault(tracked.kind, OrderedDict())
        queue[tracked] = None
        queue.move_to_end(tracked, last=not first)
        self.num_held += 1

    def _unhold(self, tracked: _Tracked) -> None:
        queue = self._held.get(tracked.kind)
        if queue is not None and tracked in queue:
            del queue[tracked]
            self.num_held -= 1
            if not queue:
                del self._held[tracked.kind]

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
            return tracked, self._quiet_links()
        elif self.num_held >= MAX_HELD:
            tracked.call.on_refused(BackPressureError(self.num_held, MAX_HELD))
        elif not self._pool.is_over_bound(tracked):
            self._hold(tracked)
            self.pump()
        return None

    def take_back(self, call: Call) -> bool:
        """Take a request that a full replica did not take; False when it is none of the desk's."""
        tracked = self._track(call)
        if tracked is None:
            return False
        self._leave(tracked)
        if tracked.is_replay or not self._pool.is_over_bound(tracked):
            self._hold(tracked, first=True)
            self.pump()
        return True

    def _track(self, call: Call) -> _Tracked | None:
        if isinstance(call, _Tracked):
            call.desk = self
            return call
        evidence = call.evidence()
        if evidence is None or evidence.kind is None:
            return None
        tracked = _Tracked(self, call, evidence.kind)
        tracked.on_moved(self._pool)
        return tracked

    def _refuse(self, tracked: _Tracked, now: float) -> None:
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
            for kind in list(self._held):
                self._pump_kind(kind, now)
        finally:
            self._is_pumping = False
        self._settle()

    def _pump_kind(self, kind: bytes, now: float) -> None:
        # Looked up each time: what is told to one may have ended another, or cleared its kind.
        while queue := self._held.get(kind):
            verdict = self._ledger.judge(kind, now)
            if verdict is Verdict.WAIT:
                return
            if verdict is Verdict.TRY:
                self._try(queue, now)
                return
            tracked = next(iter(queue))
            if verdict is Verdict.REFUSE:
                self._unhold(tracked)
                self._refuse(tracked, now)
            elif self._pool.is_unavailable(tracked):
                self._unhold(tracked)
            elif not self._send(tracked):
                return

    def _try(self, queue: OrderedDict[_Tracked, None], now: float) -> None:
        """Run one suspect where no other guest is; one that has cost a replica not on the last of several."""
        candidate: _Tracked | None = next(iter(queue))
        num_open = sum(link.is_open and not link.is_leaving for link in self._pool.links)
        if num_open < 2 and self._pool.num_replicas > 1:
            candidate = next((tracked for tracked in queue if not tracked.is_replay), None)
            for tracked in [tracked for tracked in queue if tracked.is_replay and now >= tracked.until]:
                self._unhold(tracked)
                tracked.call.on_lost(tracked.replica_id)
        # One that is told of its loss may have ended another.
        if candidate is None or candidate not in queue:
            return
        taken = set(self._guests.values())
        open_links = [link for link in self._pool.links if link not in taken]
        link = self._pool.pick(open_links, candidate)
        if link is not None:
            self._unhold(candidate)
            candidate.is_trial = candidate.was_trial = True
            self._ledger.begin_try(candidate.kind)
            self._guests[candidate] = link
            link.begin(candidate)
        elif self._pool.is_unavailable(candidate):
            self._unhold(candidate)

    def _send(self, tracked: _Tracked) -> bool:
        """Send what nothing is known against, a replay only where no suspect is; False when it has to wait here."""
        if tracked.is_replay:
            taken = {link for guest, link in self._guests.items() if guest.is_trial}
            open_links = [link for link in self._pool.links if link not in taken]
            if self._ask_router(tracked, open_links):
                return True
            link = self._pool.pick(open_links, tracked)
            if link is None:
                return False
            self._guests[tracked] = link
        elif self._ask_router(tracked, self._quiet_links()):
            return True
        else:
            link = self._pool.pick(self._quiet_links(), tracked)
        self._unhold(tracked)
        if link is not None:
            link.begin(tracked)
        else:
            tracked.on_moved(self._pool)
            self._pool.returned[tracked] = monotonic()
            if self._pool.router is not None:
                self._pool.router.requeue(tracked)
        return True

    def _ask_router(self, tracked: _Tracked, links: list[ReplicaLink]) -> bool:
        """Give a request to a router of the user's, which says later who takes it; False when there is none."""
        router = self._pool.router
        if router is None or not router.is_asking or not links:
            return False
        self._unhold(tracked)
        tracked.on_moved(self._pool)
        router.submit(tracked, links)
        return True

    def host(self, tracked: _Tracked, link: ReplicaLink) -> None:
        """Note where a replay went."""
        self._guests[tracked] = link

    def _quiet_links(self) -> list[ReplicaLink]:
        """Return the replicas without guests, if any of them has room: a newcomer may be poison too."""
        links = self._pool.links
        if not self._guests:
            return links
        taken = set(self._guests.values())
        quiet = [link for link in links if link not in taken and link.has_room and not link.is_suspect]
        return quiet or links

    # ---- when to look again

    def _settle(self) -> None:
        """Take part as long as it is needed, and wake up when something changes by itself."""
        if self._is_closed:
            return
        is_needed = bool(self._held) or not self._ledger.is_empty
        self._pool.desk = self if is_needed else None
        now = self._loop.time()
        # The first replay of each kind: the others were lost later, or with it.
        dues = [
            next((tracked.until for tracked in queue if tracked.is_replay), 0.0)
            for queue in self._held.values()
        ]
        dues = [until for until in dues if until > now]
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
