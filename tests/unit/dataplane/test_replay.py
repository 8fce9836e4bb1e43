"""The desk between a pool and its links: who is sent again, who waits, and who shares a replica with whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from trygon.dataplane.fairness import PLAIN
from trygon.dataplane.frames import FrameFlag, FrameKind
from trygon.dataplane.links import Call, ReplicaLink, Withdrawable
from trygon.dataplane.messages import ErrorKind, Evidence
from trygon.dataplane.poison import CAUSE_WAIT_S, REFUSE_S
from trygon.dataplane.pool import Pool, PoolHooks
from trygon.dataplane.replay import MAX_HELD, REPLAY_WAIT_S
from trygon.errors import BackPressureError, DeploymentUnavailableError, PoisonRequestError
from trygon.spec.routing import DeathCause, DeploymentTargets, ReplicaDeath, ReplicaTarget


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """Time that the test moves, and timers that it runs."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(when, callback)
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(100):
            due = [timer for timer in self.timers if not timer.is_cancelled and timer.when <= end]
            if not due:
                self.now = end
                return
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            self.now = max(self.now, first.when)
            first.callback()
        raise AssertionError("timers do not come to rest")


class Link:
    """A replica as a pool sees it; what it was given is answered by the test."""

    def __init__(self, world: World, replica_id: str) -> None:
        self.loop = world.loop
        self.replica_id = replica_id
        self.world = world
        self.max_ongoing = 100
        self.ongoing = 0
        self.others = 0
        self.is_open = True
        self.is_leaving = False
        self.is_suspect = False
        self.is_paused = False
        self.is_full = False
        self.transport = None
        self.calls: dict[int, Call] = {}
        self.num = 0
        self.cancelled: list[int] = []

    @property
    def num_begun(self) -> int:
        return self.num

    @property
    def pool(self) -> Pool:
        return self.world.pool

    @property
    def has_room(self) -> bool:
        return self.is_open and not self.is_leaving and not self.is_full

    def begin(self, call: Call) -> None:
        self.num += 1
        self.ongoing += 1
        self.calls[self.num] = call
        call.start(cast("ReplicaLink", self), self.num)

    def cancel(self, stream: int) -> None:
        self.cancelled.append(stream)
        del self.calls[stream]

    def forget(self, stream: int) -> None:
        del self.calls[stream]

    def send(self, frame: bytes) -> None:
        """Take a frame."""

    def leave(self) -> None:
        self.is_leaving = True

    def close_if_idle(self) -> None:
        """Stay."""

    # ---- what the test does

    def answer(
        self, call: Request, kind: FrameKind = FrameKind.RESULT, flags: int = 0, status: int = 0
    ) -> None:
        stream = call.stream
        taken = self.calls[stream] if flags & FrameFlag.MORE else self.calls.pop(stream)
        if not flags & FrameFlag.MORE:
            self.ongoing -= 1
            self.pool.on_room(cast("ReplicaLink", self))
        taken.on_frame(kind, flags, status, b"", b"")

    def die(self) -> None:
        self.is_open = False
        calls, self.calls = list(self.calls.values()), {}
        self.pool.on_calls_lost(cast("ReplicaLink", self), calls)
        self.pool.on_link_lost(cast("ReplicaLink", self))

    def reject(self, call: Request) -> None:
        self.pool.on_rejected(cast("ReplicaLink", self), self.calls.pop(call.stream))


class Request:
    """A call that writes down what it hears."""

    model_id = ""

    def __init__(self, kind: bytes | None, *, is_retryable: bool = True) -> None:
        self.kind = kind
        self.is_retryable = is_retryable
        self.has_begun = False
        self.is_over = False
        #: Each link it was sent over.
        self.sent: list[Any] = []
        self.stream = 0
        self.pool: Withdrawable | None = None
        self.link: Any = None
        self.heard: list[Any] = []
        self.ticket = PLAIN
        self.due = 0.0

    def start(self, link: ReplicaLink, stream: int) -> None:
        self.link = link
        self.stream = stream
        self.sent.append(getattr(link, "link", link))

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        if flags & FrameFlag.MORE:
            self.has_begun = True
        else:
            self.is_over = True
            self.heard.append("answer" if kind != FrameKind.ERROR else ErrorKind(status))

    def on_moved(self, pool: Withdrawable) -> None:
        self.pool = pool
        self.link = None

    def on_lost(self, replica_id: str) -> None:
        self.is_over = True
        self.heard.append(f"lost {replica_id}")

    def on_refused(self, error: Exception) -> None:
        self.is_over = True
        self.heard.append(error)

    def evidence(self) -> Evidence | None:
        if self.is_over:
            return None
        return Evidence(
            self.kind, is_retryable=self.is_retryable and not self.has_begun, has_begun=self.has_begun
        )

    def cancel(self) -> None:
        self.is_over = True
        if self.link is not None:
            self.link.cancel(self.stream)
        elif self.pool is not None:
            self.pool.withdraw(self)

    @property
    def at(self) -> Any:
        """The link that has it."""
        return self.sent[-1]


class World:
    """A pool with some replicas."""

    def __init__(self, replicas: int = 4) -> None:
        self.loop = Loop()
        self.orphans: list[Call] = []
        self.links: dict[str, Link] = {}
        hooks = PoolHooks(self._connect, lambda: None, lambda _, call: self.orphans.append(call))
        self.pool = Pool(("app", "Main", 1), hooks)
        self.deaths: tuple[ReplicaDeath, ...] = ()
        self.list(*(f"r{number}" for number in range(replicas)))

    def _connect(self, pool: Pool, replica_id: str, address: str) -> ReplicaLink:
        link = Link(self, replica_id)
        # Nobody listens any more where a replica has died.
        link.is_open = replica_id not in self.links
        self.links[replica_id] = link
        return cast("ReplicaLink", link)

    def list(self, *names: str, max_queued: int = -1, unavailable: str = "") -> None:
        self.pool.update(
            DeploymentTargets(
                app_name="app",
                name="Main",
                revision=1,
                max_ongoing_requests=100,
                max_queued_requests=max_queued,
                replicas=tuple(ReplicaTarget(name, name) for name in names),
                unavailable=unavailable,
            )
        )

    def send(self, kind: bytes | None, *, is_retryable: bool = True) -> Request:
        request = Request(kind, is_retryable=is_retryable)
        request.pool = self.pool
        self.pool.submit(request)
        return request

    def explain(self, link: Link, cause: DeathCause) -> None:
        """Let the table say why a replica died, and no longer list it."""
        self.deaths = (*self.deaths, ReplicaDeath(link.replica_id, cause))
        self.pool.hear_deaths(self.deaths)
        self.list(*(name for name, one in self.links.items() if one.is_open))

    def kill(self, link: Link, cause: DeathCause = DeathCause.OWN) -> None:
        link.die()
        self.explain(link, cause)


def test_requests_go_straight_to_their_links_until_something_dies() -> None:
    world = World()

    request = world.send(b"a")

    assert world.pool.desk is None
    assert request in request.at.calls.values()


def test_a_lost_request_waits_for_the_cause_and_goes_to_another_replica() -> None:
    world = World()
    request = world.send(b"a")
    first = request.at

    first.die()

    assert [first] == request.sent
    world.explain(first, DeathCause.OUTSIDE)
    assert 2 == len(request.sent)
    assert first is not request.at
    request.at.answer(request)
    assert ["answer"] == request.heard
    assert world.pool.desk is None


def test_without_a_cause_a_lost_request_is_sent_again_after_a_while() -> None:
    world = World()
    request = world.send(b"a")
    request.at.die()

    world.loop.advance(CAUSE_WAIT_S * 0.9)
    assert 1 == len(request.sent)
    world.loop.advance(CAUSE_WAIT_S * 0.2)

    assert 2 == len(request.sent)


def test_what_may_have_effects_fails_at_once() -> None:
    world = World()
    request = world.send(b"a", is_retryable=False)
    name = request.at.replica_id

    request.at.die()

    assert [f"lost {name}"] == request.heard


@pytest.mark.parametrize("cause", list(DeathCause))
def test_nothing_is_sent_a_third_time(cause: DeathCause) -> None:
    world = World()
    request = world.send(b"a")
    world.kill(request.at, cause)
    second = request.at

    world.kill(second, cause)
    world.loop.advance(20.0)

    assert 2 == len(request.sent)
    assert [f"lost {second.replica_id}"] == request.heard


@pytest.mark.parametrize("cause", [DeathCause.OWN, DeathCause.OUT_OF_MEMORY])
def test_a_kind_that_ended_two_is_refused_for_a_time(cause: DeathCause) -> None:
    world = World()
    first = world.send(b"a")
    world.kill(first.at, cause)
    world.kill(first.at, cause)

    (error,) = world.send(b"a").heard
    healthy = world.send(b"b")

    assert isinstance(error, PoisonRequestError)
    assert (REFUSE_S, 2, "Main") == (error.retry_after_s, error.num_deaths, error.deployment)
    assert 1 == len(healthy.sent)
    world.loop.advance(REFUSE_S + 1.0)
    assert 1 == len(world.send(b"a").sent)


def test_newcomers_of_a_lost_kind_wait_until_it_is_judged_and_then_one_is_tried() -> None:
    world = World()
    world.send(b"a", is_retryable=False).at.die()
    dead = next(link for link in world.links.values() if not link.is_open)
    burst = [world.send(b"a", is_retryable=False) for _ in range(10)]

    assert [0] * 10 == [len(one.sent) for one in burst]
    world.explain(dead, DeathCause.OWN)
    assert 1 == sum(len(one.sent) for one in burst)
    tried = next(one for one in burst if one.sent)
    world.kill(tried.at)

    assert 1 == sum(len(one.sent) for one in burst)
    assert 9 == sum(isinstance(one.heard[0], PoisonRequestError) for one in burst)


def test_one_that_completes_clears_its_kind_and_lets_all_go() -> None:
    world = World()
    world.kill(world.send(b"a", is_retryable=False).at)
    burst = [world.send(b"a") for _ in range(10)]
    assert [1] + [0] * 9 == [len(one.sent) for one in burst]

    burst[0].at.answer(burst[0])

    assert [1] * 10 == [len(one.sent) for one in burst]
    assert world.pool.desk is None


def test_an_error_of_user_code_clears_too_and_a_cancelled_one_does_not() -> None:
    world = World()
    world.kill(world.send(b"a", is_retryable=False).at)
    one, two = world.send(b"a"), world.send(b"a")

    one.at.answer(one, FrameKind.ERROR, status=ErrorKind.CANCELLED)
    assert 1 == len(two.sent)
    assert world.pool.desk is not None
    two.at.answer(two, FrameKind.ERROR, status=ErrorKind.TASK)

    assert world.pool.desk is None


def test_suspects_of_one_death_never_share_a_replica() -> None:
    world = World(replicas=1)
    lost = [world.send(bytes([number])) for number in range(5)]
    world.list("r0", "r1", "r2", "r3")

    world.kill(world.links["r0"])

    tried = [one for one in lost if len(one.sent) == 2]
    assert 3 == len({one.at for one in tried}) == len(tried)
    tried[0].at.answer(tried[0])
    assert 4 == sum(len(one.sent) == 2 for one in lost)


def test_a_killer_takes_nobody_with_it_that_was_lost_before() -> None:
    world = World(replicas=1)
    poison, healthy = world.send(b"poison"), [world.send(b"healthy") for _ in range(3)]
    world.list("r0", "r1", "r2", "r3")
    world.kill(world.links["r0"])
    tried = next(one for one in healthy if len(one.sent) == 2)
    tried.at.answer(tried)

    for one in healthy:
        assert one.at is not poison.at
    world.kill(poison.at)
    for one in healthy:
        if not one.is_over:
            one.at.answer(one)

    assert [["answer"]] * 3 == [one.heard for one in healthy]


def test_a_common_kind_is_not_blamed_for_the_poison_beside_it() -> None:
    world = World(replicas=1)
    common = world.send(b"common")
    world.list("r0", "r1", "r2", "r3", "r4", "r5")
    world.kill(common.at)
    common.at.answer(common)

    for number in range(3):
        poison, beside = (
            world.send(bytes([number]), is_retryable=False),
            Request(b"common", is_retryable=False),
        )
        world.pool.submit_to(cast("ReplicaLink", poison.at), beside)
        world.kill(poison.at)
        assert 1 == len(beside.heard)

    assert 1 == len(world.send(b"common").sent)


def test_newcomers_keep_away_from_trials_while_others_have_room() -> None:
    world = World(replicas=3)
    suspect = world.send(b"a")
    world.kill(suspect.at)

    newcomers = [world.send(bytes([number])) for number in range(20)]

    assert suspect.at not in {one.at for one in newcomers}
    for link in world.links.values():
        link.is_full = link is not suspect.at
    assert suspect.at is world.send(b"z").at


def test_a_suspect_is_not_sent_again_to_the_last_replica() -> None:
    world = World(replicas=2)
    request = world.send(b"a")
    dead = request.at
    world.kill(dead)

    assert [dead] == request.sent
    world.list(*(name for name, link in world.links.items() if link.is_open), "r9")
    world.links["r9"].pool.on_room(cast("ReplicaLink", world.links["r9"]))

    assert 2 == len(request.sent)


def test_a_suspect_without_a_second_replica_fails_in_the_end() -> None:
    world = World(replicas=2)
    request = world.send(b"a")
    dead = request.at
    world.kill(dead)

    world.loop.advance(REPLAY_WAIT_S * 0.9)
    assert [] == request.heard
    world.loop.advance(REPLAY_WAIT_S * 0.2)

    assert [f"lost {dead.replica_id}"] == request.heard


def test_a_cancelled_request_is_not_sent_again() -> None:
    world = World()
    request = world.send(b"a")
    dead = request.at
    dead.die()

    request.cancel()
    world.explain(dead, DeathCause.OUTSIDE)

    assert [dead] == request.sent
    assert [] == request.heard
    assert world.pool.desk is None


def test_a_trial_that_is_cancelled_makes_room_for_the_next() -> None:
    world = World()
    world.kill(world.send(b"a", is_retryable=False).at)
    one, two = world.send(b"a"), world.send(b"a")

    one.cancel()

    assert [one.stream] == one.at.cancelled
    assert 1 == len(two.sent)


def test_a_rejected_trial_is_tried_elsewhere() -> None:
    world = World()
    world.kill(world.send(b"a", is_retryable=False).at)
    one = world.send(b"a")
    first = one.at
    first.is_full = True

    first.reject(one)

    assert [first, one.at] == one.sent
    assert first is not one.at


def test_a_begun_answer_lets_the_next_be_tried_and_is_no_suspect_beside_others() -> None:
    world = World(replicas=1)
    stream, other = world.send(b"stream"), world.send(b"other", is_retryable=False)
    stream.at.answer(stream, FrameKind.RESPONSE, FrameFlag.MORE)
    world.list("r0", "r1", "r2")
    world.kill(world.links["r0"])

    assert ["lost r0"] == stream.heard == other.heard
    assert [1, 1] == [len(one.sent) for one in (world.send(b"stream"), world.send(b"stream"))]
    one, two = world.send(b"other"), world.send(b"other")
    assert [] == two.sent
    one.at.answer(one, FrameKind.RESPONSE, FrameFlag.MORE)
    assert 1 == len(two.sent)


def test_what_cannot_be_told_is_neither_counted_nor_held() -> None:
    world = World()
    for _ in range(3):
        socket = world.send(None, is_retryable=False)
        world.kill(socket.at)
        world.list(*(name for name, link in world.links.items() if link.is_open), f"n{len(world.links)}")

    assert 1 == len(world.send(None).sent)
    assert world.pool.desk is None


def test_what_waited_before_the_death_is_judged_too() -> None:
    world = World(replicas=2)
    poison = world.send(b"a", is_retryable=False)
    for link in world.links.values():
        link.is_full = True
    waiting = [world.send(b"a"), world.send(b"b"), world.send(None)]

    poison.at.die()
    alive = next(link for link in world.links.values() if link.is_open)
    alive.is_full = False
    world.pool.on_room(cast("ReplicaLink", alive))

    assert [0, 1, 1] == [len(one.sent) for one in waiting]


def test_held_requests_are_bounded() -> None:
    world = World()
    world.send(b"a", is_retryable=False).at.die()
    for _ in range(MAX_HELD):
        world.send(b"a")

    (error,) = world.send(b"a").heard

    assert isinstance(error, BackPressureError)


def test_held_requests_count_for_the_bound_of_the_queue() -> None:
    world = World()
    world.list("r0", "r1", "r2", "r3", max_queued=2)
    world.send(b"a", is_retryable=False).at.die()
    world.send(b"a")
    world.send(b"a")

    (error,) = world.send(b"a").heard

    assert isinstance(error, BackPressureError)


def test_held_requests_are_refused_when_no_replica_will_come() -> None:
    world = World(replicas=1)
    request = world.send(b"a")
    request.at.die()

    world.list(unavailable="it is being deleted")

    (error,) = request.heard
    assert isinstance(error, DeploymentUnavailableError)


def test_a_dropped_revision_gives_its_held_requests_to_the_next() -> None:
    world = World()
    held, lost_later, final = world.send(b"a"), world.send(b"b"), world.send(b"c", is_retryable=False)
    links = [one.at for one in (held, lost_later, final)]
    links[0].die()
    left = world.pool.close()
    for link in links[1:]:
        if link.is_open:
            link.die()

    successor = World()
    for call in [*left, *world.orphans]:
        call.on_moved(successor.pool)
        successor.pool.submit(call)

    assert 2 == len(held.sent) == len(lost_later.sent)
    assert 1 == len(final.sent) == len(final.heard)
    assert {held.at, lost_later.at} <= set(successor.links.values())
    held.at.answer(held)
    assert ["answer"] == held.heard
    if not lost_later.is_over:
        successor.kill(lost_later.at)
        assert [f"lost {lost_later.at.replica_id}"] == lost_later.heard


def test_the_end_of_the_instance_fails_what_is_held() -> None:
    world = World()
    request = world.send(b"a")
    request.at.die()

    world.pool.end(DeploymentUnavailableError("the instance was shut down"))

    assert 1 == len(request.heard)
    assert all(timer.is_cancelled for timer in world.loop.timers)


def test_a_real_loop_runs_the_desk() -> None:
    async def run() -> list[Any]:
        world = World()
        world.loop = cast("Loop", asyncio.get_running_loop())
        for link in world.links.values():
            link.loop = world.loop
        request = world.send(b"a")
        world.kill(request.at, DeathCause.OUTSIDE)
        request.at.answer(request)
        return request.heard

    assert ["answer"] == asyncio.run(run())


def test_no_more_is_sent_again_than_the_budget_allows() -> None:
    world = World(1)
    link = world.links["r0"]
    link.max_ongoing = 1000
    requests = [world.send(b"%d" % number) for number in range(150)]

    world.kill(link, DeathCause.OUTSIDE)

    lost = [request for request in requests if request.is_over]
    assert 50 == len(lost), "one replica's worth, 100, needs nobody to have earned it"
    assert {"lost r0"} == {str(request.heard[0]) for request in lost}
    assert 100 == world.pool.num_queued
