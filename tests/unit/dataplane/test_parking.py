"""Requests that wait for certain replicas: who starts when, and that none is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from trygon.dataplane.fairness import PLAIN
from trygon.dataplane.links import Call, ReplicaLink
from trygon.dataplane.pool import Pool, PoolHooks
from trygon.dataplane.routing.parking import HashRouter, PlainRouter, PoolRouter
from trygon.dataplane.routing.rules import HashRing
from trygon.errors import BackPressureError
from trygon.spec.routers import CONSISTENT_HASH, LEAST_LOADED, ROUND_ROBIN, RouterRule
from trygon.spec.routing import DeploymentTargets, ReplicaTarget


class Loop:
    """Timers that the test runs."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def call_later(self, _delay_s: float, callback: Callable[[], None]) -> Any:
        self.timers.append(callback)
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def run(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()


class Link:
    """A replica with room for one request, as a pool sees it."""

    def __init__(self, pool: Pool, replica_id: str) -> None:
        self.pool = pool
        self.replica_id = replica_id
        self.max_ongoing = 1
        self.others = self.num_begun = 0
        self.is_open, self.is_leaving, self.is_suspect = True, False, False
        self.transport = None
        self.calls: list[Request] = []

    @property
    def ongoing(self) -> int:
        return len(self.calls)

    @property
    def has_room(self) -> bool:
        return self.is_open and not self.is_leaving and self.ongoing < self.max_ongoing

    def begin(self, call: Request) -> None:
        call.at = self.replica_id
        self.calls.append(call)

    def leave(self) -> None:
        self.is_leaving = True

    def close_if_idle(self) -> None:
        """Stay."""

    def finish(self) -> None:
        self.calls.pop(0)
        self.pool.on_room(cast("ReplicaLink", self))

    def reject(self) -> None:
        self.others = self.max_ongoing
        call = self.calls.pop()
        self.is_open = False
        self.pool.on_rejected(cast("ReplicaLink", self), cast("Call", call))


class Request:
    model_id = ""
    ticket = PLAIN
    due = 0.0

    def __init__(self, session_id: str = "") -> None:
        self.session_id = session_id
        self.at = ""
        self.error: Exception | None = None

    def on_moved(self, _pool: object) -> None:
        self.at = ""

    def on_refused(self, error: Exception) -> None:
        self.error = error


NAMES = ("a", "b", "c", "d")


class World:
    def __init__(self, rule: str, *, max_queued: int = -1, fallbacks: int = 1) -> None:
        self.loop = Loop()
        self.rule = RouterRule(name=rule, num_fallback_replicas=fallbacks)
        self.max_queued = max_queued
        self.pool = Pool(
            ("shop", "Model", 1),
            PoolHooks(self._connect, lambda: None, lambda _key, _call: None, new_router=self._router),
        )

    def _connect(self, pool: Pool, replica_id: str, _address: str) -> ReplicaLink:
        return cast("ReplicaLink", Link(pool, replica_id))

    def _router(self, pool: Pool, targets: DeploymentTargets) -> PoolRouter:
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        if targets.router.name == CONSISTENT_HASH:
            return HashRouter(pool, loop, targets.router)
        return PlainRouter(pool, targets.router)

    def list(self, *names: str) -> None:
        self.pool.update(
            DeploymentTargets(
                app_name="shop",
                name="Model",
                revision=1,
                max_ongoing_requests=1,
                max_queued_requests=self.max_queued,
                router=self.rule,
                replicas=tuple(ReplicaTarget(name, "") for name in names),
            )
        )

    def link(self, name: str) -> Link:
        return cast("Link", next(link for link in self.pool.links if link.replica_id == name))

    def send(self, session_id: str = "") -> Request:
        request = Request(session_id)
        self.pool.submit(cast("Call", request))
        return request

    @property
    def num_waiting(self) -> int:
        return self.pool.num_waiting


def holders(session_id: str, names: tuple[str, ...] = NAMES) -> tuple[str, ...]:
    return HashRing(names, 100).holders(session_id, 2)


@pytest.fixture
def hashed() -> Iterator[World]:
    world = World(CONSISTENT_HASH)
    world.list(*NAMES)
    yield world
    world.pool.close()


def test_a_session_goes_to_its_holder_then_to_its_fallback_then_waits_for_either(hashed: World) -> None:
    first, second = holders("ann")

    requests = [hashed.send("ann") for _ in range(4)]

    assert [first, second, "", ""] == [request.at for request in requests]
    hashed.link(second).finish()
    assert [first, second, second, ""] == [request.at for request in requests]
    hashed.link(first).finish()
    assert [first, second, second, first] == [request.at for request in requests]
    assert 0 == hashed.num_waiting


def test_a_replica_that_is_free_takes_nothing_that_is_not_for_it(hashed: World) -> None:
    for _ in range(2):
        hashed.send("ann")
    waiting = hashed.send("ann")
    other = next(name for name in NAMES if name not in holders("ann"))

    hashed.link(other).pool.on_room(cast("ReplicaLink", hashed.link(other)))

    assert ("", 1) == (waiting.at, hashed.num_waiting)


def test_requests_without_a_session_wait_for_anyone_in_their_order(hashed: World) -> None:
    for _ in NAMES:
        hashed.send()
    first, session, last = hashed.send(), hashed.send("ann"), hashed.send()
    holder = holders("ann")[0]

    hashed.link(holder).finish()
    assert (holder, "", "") == (first.at, session.at, last.at)
    hashed.link(holder).finish()
    hashed.link(holder).finish()
    assert (holder, holder, holder) == (first.at, session.at, last.at)


def test_what_waits_for_a_replica_that_is_gone_goes_to_the_next(hashed: World) -> None:
    for _ in range(2):
        hashed.send("ann")
    waiting = hashed.send("ann")
    left = tuple(name for name in NAMES if name not in holders("ann"))

    hashed.list(*left)
    hashed.loop.run()

    assert waiting.at == holders("ann", left)[0]


def test_what_waits_without_any_replica_starts_when_one_comes() -> None:
    world = World(CONSISTENT_HASH)
    world.list()
    waiting = [world.send("ann"), world.send()]
    assert 2 == world.num_waiting

    world.list("a", "b")
    world.loop.run()

    assert {"a", "b"} == {request.at for request in waiting}
    world.pool.close()


def test_a_holder_that_is_suspect_is_left_out_until_it_wakes(hashed: World) -> None:
    first, second = holders("ann")
    hashed.link(first).is_suspect = True
    assert second == hashed.send("ann").at

    hashed.link(first).is_suspect = False

    assert first == hashed.send("ann").at


def test_a_request_that_was_rejected_goes_to_the_fallback(hashed: World) -> None:
    first, second = holders("ann")
    request = hashed.send("ann")
    assert first == request.at

    hashed.link(first).reject()

    assert second == request.at


def test_a_session_waits_a_moment_for_a_replica_that_is_being_connected_to(hashed: World) -> None:
    first, second = holders("ann")
    hashed.link(first).is_open = False
    early = hashed.send("ann")
    assert "" == early.at

    hashed.loop.run()
    assert second == early.at

    again = hashed.send("ann")
    hashed.link(first).is_open = True
    hashed.pool.on_room(cast("ReplicaLink", hashed.link(first)))
    assert first == again.at


def test_a_request_that_was_given_up_is_not_started(hashed: World) -> None:
    first, _ = holders("ann")
    given_up, last = [hashed.send("ann") for _ in range(4)][2:]

    hashed.pool.withdraw(cast("Call", given_up))
    hashed.link(first).finish()

    assert ("", first, 0) == (given_up.at, last.at, hashed.num_waiting)


def test_the_queue_of_a_session_is_bounded_like_any() -> None:
    world = World(CONSISTENT_HASH, max_queued=1)
    world.list(*NAMES)

    requests = [world.send("ann") for _ in range(4)]

    assert isinstance(requests[3].error, BackPressureError)
    assert 1 == world.num_waiting
    world.pool.close()


def test_what_waits_is_given_back_when_the_pool_is_closed(hashed: World) -> None:
    waiting = [hashed.send("ann") for _ in range(5)][2:]

    assert waiting == hashed.pool.close()
    assert [] == hashed.loop.timers


@pytest.mark.parametrize("rule", [ROUND_ROBIN, LEAST_LOADED])
def test_with_plain_rules_anyone_takes_what_waits_oldest_first(rule: str) -> None:
    world = World(rule)
    world.list(*NAMES)
    started = [world.send() for _ in NAMES]
    first, second = world.send(), world.send()

    world.link("c").finish()
    world.link("b").finish()

    assert set(NAMES) == {request.at for request in started}
    assert ("c", "b") == (first.at, second.at)


@pytest.mark.parametrize("rule", [ROUND_ROBIN, LEAST_LOADED])
def test_with_plain_rules_what_is_more_important_goes_first(rule: str) -> None:
    world = World(rule)
    world.list("a")
    world.send()
    usual, urgent = Request(), Request()
    urgent.ticket = (1, "")

    for request in (usual, urgent):
        world.pool.submit(cast("Call", request))
    world.link("a").finish()

    assert ("", "a") == (usual.at, urgent.at)


@pytest.mark.parametrize("rule", [ROUND_ROBIN, LEAST_LOADED])
def test_with_plain_rules_what_waited_waited_for_a_first_replica_starts(rule: str) -> None:
    world = World(rule)
    world.list()
    waiting = [world.send(), world.send()]

    world.list("a", "b")

    assert {"a", "b"} == {request.at for request in waiting}
