"""Routers of pools: who takes a request where the rule is not power of two choices.

A pool without such a rule has no router, and knows nothing of this.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol

from trygon.dataplane.balancing import choose
from trygon.dataplane.caller_metrics import CallerStats
from trygon.dataplane.fairness import CallQueue
from trygon.dataplane.links import Call, ReplicaLink
from trygon.dataplane.routing.rules import HashRing, first_cool, least_loaded, next_in_turn
from trygon.spec.routers import ROUND_ROBIN, RouterRule
from trygon.spec.routing import DeploymentTargets

__all__ = ["ANY", "UNROUTED", "HashRouter", "ParkingRouter", "PlainRouter", "PoolRouter", "RoutedPool"]

#: Stand among the ids of replicas: every replica may take it; nobody has said yet who may.
ANY = ("*",)
UNROUTED = ("?",)
#: Requests that are looked at again in one turn of the loop.
BATCH = 64

_randbits = random.getrandbits


class RoutedPool(Protocol):
    """The pool a router belongs to."""

    key: tuple[str, str, int]
    links: list[ReplicaLink]
    stats: CallerStats
    returned: OrderedDict[Call, float]
    waiting: CallQueue[Call]

    @property
    def targets(self) -> DeploymentTargets | None:
        """What the routing table says of it."""

    def place(self, links: Sequence[ReplicaLink], model_id: str) -> ReplicaLink | None:
        """Return who takes a request for a model, or for none; None if it has to wait."""

    def enqueue(self, call: Call) -> bool:
        """Let `call` wait, or refuse it; whether it waits."""

    def start_next(self, link: ReplicaLink) -> None:
        """Start the request whose turn it is."""

    def start_queued(self, call: Call, link: ReplicaLink) -> bool:
        """Start a request that waits; False when it does not any more."""


class PoolRouter(Protocol):
    """What a pool asks."""

    #: Whether somebody else is asked, and answers later.
    is_asking: bool

    @property
    def num_held(self) -> int:
        """Requests that are in no queue and at no replica, because it is being asked where they go."""

    def submit(self, call: Call, links: Sequence[ReplicaLink]) -> None:
        """Start a new request on one of `links`, or let it wait."""

    def pick(self, links: Sequence[ReplicaLink], call: Call) -> ReplicaLink | None:
        """Return who takes a request that is sent again; None when it is to wait."""

    def start_next(self, link: ReplicaLink) -> bool:
        """Start a request that waits for `link`; False when none does."""

    def requeue(self, call: Call) -> None:
        """Route a request anew that waits."""

    def pump(self) -> None:
        """Look at what waits: replicas came or went."""

    def forget(self, call: Call) -> None:
        """Forget a request that its caller gave up, or that was started."""

    def take_held(self) -> list[Call]:
        """Return what is in no queue, and forget everything that waits."""

    def close(self) -> None:
        """Stop."""


class PlainRouter:
    """Rules that say who is next, and that anyone may take what waits: round robin, least loaded."""

    __slots__ = ("_is_in_turn", "_last", "_pool")

    is_asking = False
    num_held = 0

    def __init__(self, pool: RoutedPool, rule: RouterRule) -> None:
        self._pool = pool
        self._is_in_turn = rule.name == ROUND_ROBIN
        #: Whose turn it was.
        self._last = ""

    def submit(self, call: Call, links: Sequence[ReplicaLink]) -> None:
        pool = self._pool
        link = self.pick(links, call) if not (pool.waiting or pool.returned) else None
        if link is None:
            pool.enqueue(call)
            return
        pool.stats.num_immediate += 1
        link.begin(call)

    def pick(self, links: Sequence[ReplicaLink], call: Call) -> ReplicaLink | None:
        if call.model_id:
            return self._pool.place(links, call.model_id)
        return self._next(links)

    def _next(self, links: Sequence[ReplicaLink]) -> ReplicaLink | None:
        if not self._is_in_turn:
            return least_loaded(links, _randbits(32))
        link = next_in_turn(links, self._last)
        if link is not None:
            self._last = link.replica_id
        return link

    def start_next(self, link: ReplicaLink) -> bool:
        self._last = link.replica_id
        self._pool.start_next(link)
        return True

    def requeue(self, call: Call) -> None:
        """It waits in its pool, for anyone."""

    def pump(self) -> None:
        pool = self._pool
        while pool.returned or pool.waiting:
            link = self._next(pool.links)
            if link is None:
                return
            pool.start_next(link)

    def forget(self, call: Call) -> None:
        """Nothing is kept of a request."""

    def take_held(self) -> list[Call]:
        return []

    def close(self) -> None:
        """Nothing runs."""


class ParkingRouter:
    """Lets each request wait for some replicas only, in order of arrival at each of them.

    The requests themselves wait in the pool's queue, which bounds them and knows their time; here is only who
    may take them. From time to time, ever less often, the oldest are routed anew.
    """

    is_asking = False

    def __init__(self, pool: RoutedPool, loop: asyncio.AbstractEventLoop, rule: RouterRule) -> None:
        self._pool = pool
        self._loop = loop
        self._rule = rule
        self._wants: dict[Call, tuple[str, ...]] = {}
        #: The same by replica, with the order of arrival.
        self._parked: dict[str, OrderedDict[Call, int]] = {}
        self._numbers = itertools.count(1)
        self._pause_s = rule.initial_backoff_s
        self._timer: asyncio.TimerHandle | None = None

    # ---- what the kinds of routers say

    @property
    def num_held(self) -> int:
        return 0

    def submit(self, call: Call, links: Sequence[ReplicaLink]) -> None:
        raise NotImplementedError

    def pick(self, links: Sequence[ReplicaLink], call: Call) -> ReplicaLink | None:
        raise NotImplementedError

    def _route_again(self, calls: list[Call]) -> None:
        """Route requests that wait."""
        raise NotImplementedError

    # ---- waiting

    def _let_wait(self, call: Call, wants: tuple[str, ...]) -> None:
        if self._pool.enqueue(call):
            self._park(call, wants)

    def _park(self, call: Call, wants: tuple[str, ...]) -> None:
        """Note who may take a request that waits; it keeps its place where it had one."""
        if self._wants.get(call) != wants:
            is_first = call in self._pool.returned
            self.forget(call)
            self._wants[call] = wants
            number = next(self._numbers)
            for name in wants:
                queue = self._parked.setdefault(name, OrderedDict())
                queue[call] = -number if is_first else number
                queue.move_to_end(call, last=not is_first)
        if self._timer is None:
            self._timer = self._loop.call_later(self._pause_s, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        oldest = list(itertools.islice(itertools.chain(self._pool.returned, self._pool.waiting), BATCH))
        if not oldest:
            self._pause_s = self._rule.initial_backoff_s
            self._wants.clear()
            self._parked.clear()
            return
        self._pause_s = min(self._pause_s * self._rule.backoff_multiplier, self._rule.max_backoff_s)
        self._timer = self._loop.call_later(self._pause_s, self._look_again)
        self._route_again(oldest)

    def start_next(self, link: ReplicaLink) -> bool:
        while True:
            # Of those that only this replica may take and those that anyone may, the one that came first.
            heads = [
                (number, call)
                for name in (link.replica_id, *ANY)
                if (queue := self._parked.get(name))
                for call, number in itertools.islice(queue.items(), 1)
            ]
            if not heads:
                break
            _, call = min(heads, key=lambda head: head[0])
            self.forget(call)
            if self._pool.start_queued(call, link):
                return True
        before = len(self._pool.returned) + len(self._pool.waiting)
        self._route_unrouted()
        return len(self._pool.returned) + len(self._pool.waiting) < before

    def _route_unrouted(self) -> None:
        unrouted = self._parked.get(*UNROUTED)
        if unrouted:
            self._route_again(list(itertools.islice(unrouted, BATCH)))

    def requeue(self, call: Call) -> None:
        self._park(call, UNROUTED)

    def pump(self) -> None:
        for call in itertools.islice(itertools.chain(self._pool.returned, self._pool.waiting), None):
            if call not in self._wants:
                self._park(call, UNROUTED)
        self._route_unrouted()

    def forget(self, call: Call) -> None:
        for name in self._wants.pop(call, ()):
            queue = self._parked.get(name)
            if queue is not None:
                queue.pop(call, None)
                if not queue:
                    del self._parked[name]

    def take_held(self) -> list[Call]:
        self._wants.clear()
        self._parked.clear()
        return []

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_waiting(self, call: Call, link: ReplicaLink) -> None:
        self.forget(call)
        self._pool.start_queued(call, link)

    def _start_new(self, call: Call, link: ReplicaLink) -> None:
        self._pool.stats.num_immediate += 1
        link.begin(call)


class HashRouter(ParkingRouter):
    """Consistent hashing with a bound on the load: a session goes to one replica while that is there.

    The key is the session, or else the model; requests without either go by power of two choices.
    """

    def __init__(self, pool: RoutedPool, loop: asyncio.AbstractEventLoop, rule: RouterRule) -> None:
        super().__init__(pool, loop, rule)
        self._ring = HashRing((), 1)
        self._ring_of: tuple[str, ...] = ()

    def submit(self, call: Call, links: Sequence[ReplicaLink]) -> None:
        link, wants = self._look(call, links)
        if link is not None and link.replica_id != wants[0] and self._is_worth_waiting_for(wants[0]):
            self._let_wait(call, wants[:1])
        elif link is not None:
            self._start_new(call, link)
        else:
            self._let_wait(call, wants)

    def _is_worth_waiting_for(self, name: str) -> bool:
        """Whether a replica is only being connected to, as after a deploy: then a session waits for a moment.

        It is routed anew soon, and goes to a fallback then. Not where the queue has a bound that this might hit.
        """
        targets = self._pool.targets
        if targets is None or targets.max_queued_requests >= 0:
            return False
        return any(link.replica_id == name and not link.is_open for link in self._pool.links)

    def pick(self, links: Sequence[ReplicaLink], call: Call) -> ReplicaLink | None:
        return self._look(call, links)[0]

    def _route_again(self, calls: list[Call]) -> None:
        for call in calls:
            link, wants = self._look(call, self._pool.links)
            if link is not None:
                self._start_waiting(call, link)
            else:
                self._park(call, wants)

    def _look(self, call: Call, links: Sequence[ReplicaLink]) -> tuple[ReplicaLink | None, tuple[str, ...]]:
        """Return who takes a request now, or who may take it later."""
        key = call.session_id or call.model_id
        if not key:
            return choose(links, _randbits(32)), ANY
        everyone = self._pool.links
        if not everyone:
            return None, UNROUTED
        wants = self._ring_for(everyone).holders(key, 1 + self._rule.num_fallback_replicas)
        by_id = {link.replica_id: link for link in links}
        holders = [by_id[name] for name in wants if name in by_id]
        return first_cool(holders, everyone), wants

    def _ring_for(self, links: Iterable[ReplicaLink]) -> HashRing:
        """Return the ring of those that are awake; made anew when these are others."""
        awake = tuple(link.replica_id for link in links if not link.is_suspect)
        names = awake or tuple(link.replica_id for link in links)
        if names != self._ring_of:
            self._ring_of = names
            self._ring = HashRing(names, self._rule.num_virtual_nodes)
        return self._ring
