"""What an ingress lets wait, with replicas that the test answers for and time that it moves."""

from __future__ import annotations

from typing import Any, cast

import pytest

from trygon.dataplane import gate as gate_module
from trygon.dataplane.admission import MAX_QUEUED
from trygon.dataplane.frames import FrameKind
from trygon.dataplane.gate import Gate
from trygon.dataplane.gateway import Failure
from trygon.dataplane.links import Call, ReplicaLink
from trygon.dataplane.messages import HttpMeta
from trygon.dataplane.pool import Pool, PoolHooks
from trygon.dataplane.router import Router
from trygon.dataplane.routes import RouterGateway
from trygon.spec.queueing import NO_WAIT_BOUND, QueuePolicy
from trygon.spec.routing import ApplicationRoute, DeploymentTargets, ReplicaTarget, RoutingTable

SLOTS = 2


class Link:
    """A replica that works on what it is given until the test says that it is done."""

    def __init__(self, pool: Pool, replica_id: str, max_ongoing: int) -> None:
        self.pool = pool
        self.replica_id = replica_id
        self.max_ongoing = max_ongoing
        self.is_open = True
        self.is_suspect = self.is_leaving = False
        self.others = 0
        self.num_begun = 0
        self.calls: list[Call] = []
        self.is_paused = False
        self.transport = None

    @property
    def ongoing(self) -> int:
        return len(self.calls)

    @property
    def has_room(self) -> bool:
        return self.is_open and self.ongoing < self.max_ongoing

    def begin(self, call: Call) -> None:
        self.num_begun += 1
        self.calls.append(call)
        call.start(cast("ReplicaLink", self), self.num_begun)

    def finish(self) -> None:
        """Answer the oldest request."""
        call = self.calls.pop(0)
        self.pool.on_room(cast("ReplicaLink", self))
        call.on_frame(int(FrameKind.RESPONSE), 0, 200, b"", b"")

    def reject(self) -> None:
        """Say that the newest request has no place."""
        call = self.calls.pop()
        self.pool.on_rejected(cast("ReplicaLink", self), call)

    def send(self, frame: bytes) -> None:
        return

    def cancel(self, stream: int) -> None:
        return

    def close_if_idle(self) -> None:
        return


class Client:
    """A client's connection: what it was answered."""

    def __init__(self) -> None:
        self.status = 0
        self.failure: Failure | None = None

    def on_response(self, status: int, flags: int, head: bytes, body: bytes) -> None:
        self.status = status

    def on_data(self, data: bytes, flags: int) -> None:
        return

    def on_failure(self, failure: Failure) -> None:
        self.status, self.failure = failure.status, failure

    def on_writable(self) -> None:
        return


class _Routes:
    """A router with one pool."""

    def __init__(self, ingress: Ingress) -> None:
        self.loop = ingress
        self.ingress = ingress

    def pool(self, *_: object) -> Pool:
        return self.ingress.pool

    known_pool = pool


class Ingress:
    """A gateway with one pool and one replica."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.links: list[Link] = []
        hooks = PoolHooks(self._connect, lambda: None, lambda *_: None)
        self.pool = Pool(("app", "Main", 1), hooks, gate=Gate(self.time))
        self.gateway = RouterGateway(cast("Router", _Routes(self)))
        self.update(**options)

    def time(self) -> float:
        return self.now

    def _connect(self, pool: Pool, replica_id: str, address: str) -> ReplicaLink:
        self.links.append(Link(pool, replica_id, pool.max_ongoing_requests))
        return cast("ReplicaLink", self.links[-1])

    def update(self, **options: Any) -> None:
        targets = DeploymentTargets(
            app_name="app",
            name="Main",
            revision=1,
            max_ongoing_requests=SLOTS,
            replicas=(ReplicaTarget("r0", ""),),
            **options,
        )
        self.pool.update(targets)
        route = ApplicationRoute(app_name="app", route_prefix="/", ingress="Main", revision=1)
        self.gateway.apply(RoutingTable(version=1, applications=(route,), deployments=(targets,)))

    # ---- what tests do

    @property
    def link(self) -> Link:
        return self.links[0]

    def ask(self, tenant: str = "", *, priority: str = "", timeout_s: float = 0.0) -> Client:
        client = Client()
        headers = [(b"x-other", b"-"), (b"x-tenant", tenant.encode()), (b"x-priority", priority.encode())]
        deadline = self.time() + timeout_s if timeout_s else 0.0
        meta = HttpMeta("GET", "/", b"/", b"", headers, "id", deadline=deadline, client=(tenant, 1))
        match = self.gateway.match("/")
        assert match is not None
        self.gateway.open(match, meta, b"", more=False, sink=client)
        return client

    def fill(self, count: int, tenant: str = "", **options: Any) -> list[Client]:
        return [self.ask(tenant, **options) for _ in range(count)]

    def drain(self, per_s: float, seconds: float, tenant: str = "") -> None:
        """Answer at a steady pace for so long, with as many newcomers."""
        for _ in range(int(per_s * seconds)):
            self.now += 1 / per_s
            self.link.finish()
            self.ask(tenant)

    def is_full(self) -> bool:
        match = self.gateway.match("/")
        assert match is not None
        return self.gateway.full(match) is not None


def waiting(ingress: Ingress) -> int:
    return len(ingress.pool.waiting)


def test_a_hundred_wait_until_it_is_measured_how_fast_they_leave() -> None:
    ingress = Ingress()
    ingress.fill(SLOTS + 99)
    assert not ingress.is_full()
    ingress.ask()

    refused = ingress.ask()

    assert 100 == waiting(ingress)
    assert ingress.is_full()
    assert 503 == refused.status
    assert refused.failure is not None
    assert (refused.failure.retry_after_s or 0) >= 1
    assert "backpressure" in refused.failure.reason


def test_about_a_second_of_waiting_is_let_in_once_it_is_measured() -> None:
    ingress = Ingress()
    ingress.fill(SLOTS + 50)
    ingress.drain(400, 4)

    ingress.fill(1000)

    assert 0.75 <= waiting(ingress) / 400 <= 1.0


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"queue": QueuePolicy(max_wait_s=0.1)}, 32),
        ({"queue": QueuePolicy(max_wait_s=NO_WAIT_BOUND)}, 1000),
        ({"max_queued_requests": 700}, 700),
        ({"max_queued_requests": 30}, 30),
        ({"max_queued_requests": 700, "queue": QueuePolicy(max_wait_s=0.5)}, 160),
    ],
)
def test_the_operator_says_how_many_may_wait(options: dict[str, Any], expected: int) -> None:
    ingress = Ingress(**options)
    ingress.fill(SLOTS + 20)
    ingress.drain(400, 4)

    ingress.fill(1500 if expected < 1000 else 1000 - waiting(ingress))

    assert expected == pytest.approx(waiting(ingress), abs=2)


def test_a_refusal_has_the_status_and_the_seconds_that_the_operator_wants() -> None:
    ingress = Ingress(backpressure_status_code=429, backpressure_retry_after_s=7.0)
    ingress.fill(SLOTS + 100)

    refused = [ingress.ask().failure, ingress.ask().failure]

    assert [(429, 7.0)] * 2 == [(one.status, one.retry_after_s) for one in refused if one is not None]
    assert refused[0] is refused[1], "made once"


def test_a_full_queue_of_counted_requests_says_when_to_come_back_too() -> None:
    ingress = Ingress(max_queued_requests=1)
    ingress.fill(SLOTS + 1)

    refused = ingress.ask().failure

    assert refused is not None
    assert (refused.retry_after_s or 0) >= 1
    assert "max_queued_requests" in refused.reason


def test_a_refusal_names_the_time_until_the_queue_is_gone() -> None:
    ingress = Ingress(queue=QueuePolicy(max_wait_s=20.0))
    ingress.fill(SLOTS + 90)
    ingress.drain(10, 8)
    ingress.fill(200)

    seconds = {one.failure.retry_after_s or 0 for one in ingress.fill(200) if one.failure is not None}

    assert min(seconds) >= 16
    assert len(seconds) > 10


def test_a_request_that_cannot_make_its_deadline_is_refused_on_arrival() -> None:
    ingress = Ingress()
    ingress.fill(SLOTS + 50)
    ingress.drain(100, 4)

    hopeless, hopeful = ingress.ask(timeout_s=0.2), ingress.ask(timeout_s=0.9)

    assert 503 == hopeless.status
    assert hopeless.failure is not None
    assert "0.2 s" in hopeless.failure.reason
    assert (hopeless.failure.retry_after_s or 0) >= 1
    assert 0 == hopeful.status


def test_a_request_whose_time_is_over_never_starts() -> None:
    ingress = Ingress()
    ingress.fill(SLOTS)
    late, next_one = ingress.ask(timeout_s=0.5), ingress.ask()
    ingress.now += 0.6

    ingress.link.finish()

    assert 408 == late.status
    assert SLOTS == ingress.link.ongoing
    assert 0 == next_one.status
    assert 0 == waiting(ingress)


def test_a_queue_without_a_bound_in_seconds_holds_ten_thousand() -> None:
    ingress = Ingress(queue=QueuePolicy(max_wait_s=NO_WAIT_BOUND))
    ingress.fill(SLOTS + MAX_QUEUED)

    refused = ingress.ask().failure

    assert MAX_QUEUED == waiting(ingress)
    assert refused is not None
    assert "as the ingress holds" in refused.reason


def test_an_evicted_request_is_told_the_same_as_a_refused_one() -> None:
    ingress = Ingress(queue=QueuePolicy(fairness_key="header:x-tenant"), backpressure_status_code=429)
    evicted = ingress.fill(SLOTS + 100, "big")[-1]
    ingress.ask("small")
    refused = ingress.ask("big")

    assert evicted.failure is not None
    assert refused.failure is not None
    assert 429 == evicted.status
    assert evicted.failure.reason == refused.failure.reason
    assert (evicted.failure.retry_after_s or 0) >= 1


def test_refusals_that_are_kept_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "_MAX_KEPT_REFUSALS", 1)
    ingress = Ingress()
    ingress.fill(SLOTS + 100)

    assert {503} == {client.status for client in ingress.fill(20)}


def test_what_a_replica_rejects_keeps_its_place_and_does_not_count_as_drained() -> None:
    ingress = Ingress()
    first = ingress.fill(SLOTS)
    ingress.link.max_ongoing = 1
    ingress.link.reject()

    ingress.link.finish()

    assert [200, 0] == [client.status for client in first]
    assert 1 == ingress.link.ongoing
    gate = ingress.pool.gate
    assert gate is not None
    assert gate.statistics(ingress.pool).drain_per_s is None


def test_time_without_a_replica_says_nothing_about_the_pace() -> None:
    ingress = Ingress()
    ingress.fill(SLOTS + 50)
    ingress.drain(400, 4)
    gate = ingress.pool.gate
    assert gate is not None

    ingress.link.is_open = False
    ingress.pool.on_link_lost(cast("ReplicaLink", ingress.link))
    ingress.links[-1].is_open = False
    ingress.now += 30

    assert 400 == pytest.approx(gate.statistics(ingress.pool).drain_per_s, rel=0.01)


def test_what_was_done_is_counted() -> None:
    ingress = Ingress()
    ingress.fill(SLOTS + 50)
    ingress.drain(100, 4)
    ingress.ask(timeout_s=0.01)
    ingress.fill(60)
    gate = ingress.pool.gate
    assert gate is not None

    seen = gate.statistics(ingress.pool)

    assert (1, 0, 0) == (seen.num_hopeless, seen.num_evicted, seen.num_expired)
    assert 50 + 60 - 80 == pytest.approx(seen.num_refused, abs=2)
    assert 100 == pytest.approx(seen.drain_per_s, rel=0.01)
    assert 80 == pytest.approx(seen.bound, abs=1)


# ---- tenants


def test_the_newest_of_the_flooding_tenant_goes_when_the_queue_is_full() -> None:
    ingress = Ingress(queue=QueuePolicy(fairness_key="header:x-tenant"))
    flood = ingress.fill(SLOTS + 100, "big")

    small = ingress.ask("small")
    more = ingress.ask("big")

    assert 0 == small.status
    assert 503 == flood[-1].status
    assert 0 == flood[-2].status
    assert 503 == more.status
    assert not ingress.is_full(), "it depends on whose request it is"


def test_a_counted_queue_sheds_the_flooding_tenant_too() -> None:
    ingress = Ingress(max_queued_requests=4, queue=QueuePolicy(fairness_key="header:x-tenant"))
    flood = ingress.fill(SLOTS + 4, "big")

    small = ingress.ask("small")

    assert 0 == small.status
    assert 503 == flood[-1].status


@pytest.mark.parametrize("source", ["header:x-tenant", "client"])
def test_a_small_tenant_starts_next_while_another_floods(source: str) -> None:
    ingress = Ingress(queue=QueuePolicy(fairness_key=source))
    ingress.fill(SLOTS + 50, "big")
    small = ingress.ask("small")

    for _ in range(SLOTS + 2):
        ingress.link.finish()

    assert 200 == small.status


def test_requests_that_do_not_say_whose_they_are_are_one_tenant() -> None:
    ingress = Ingress(queue=QueuePolicy(fairness_key="header:x-nobody-sends-it"))
    asked = ingress.fill(SLOTS + 3, "one") + ingress.fill(3, "two")

    for _ in range(SLOTS + 3):
        ingress.link.finish()

    assert [200] * (SLOTS + 3) + [0] * 3 == [client.status for client in asked]


def test_the_operators_names_of_priorities_count_and_no_others() -> None:
    policy = QueuePolicy(priority="header:x-priority", priorities={"high": 1, "low": -1})
    ingress = Ingress(queue=policy)
    ingress.fill(SLOTS)
    low, plain, made_up = (ingress.ask(priority=word) for word in ("low", "", "9999"))
    high = ingress.ask(priority="High")

    order = []
    for _ in range(SLOTS + 4):
        ingress.link.finish()
        named = {"low": low, "plain": plain, "made up": made_up, "high": high}
        order += [name for name, client in named.items() if client.status and name not in order]

    assert ["high", "plain", "made up", "low"] == order


def test_a_deadline_is_judged_by_the_place_in_the_fair_queue() -> None:
    ingress = Ingress(queue=QueuePolicy(fairness_key="header:x-tenant"))
    ingress.fill(SLOTS + 50, "big")
    ingress.drain(100, 4, "big")

    assert 503 == ingress.ask("big", timeout_s=0.2).status
    assert 0 == ingress.ask("small", timeout_s=0.2).status


def test_what_waits_stays_in_order_when_tenants_take_turns_from_now_on() -> None:
    ingress = Ingress()
    before = ingress.fill(SLOTS + 3, "big")

    ingress.update(queue=QueuePolicy(fairness_key="header:x-tenant"))
    ingress.ask("small")
    for _ in range(SLOTS + 1):
        ingress.link.finish()

    assert [200] * 3 + [0] * 2 == [client.status for client in before]
    assert 1 == waiting(ingress)
