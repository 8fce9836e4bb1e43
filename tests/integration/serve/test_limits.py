"""max_ongoing_requests is exact per replica, max_queued_requests exact per caller; nobody starves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.serve.conftest import RunApp
from tests.integration.serve.limit_apps import Blocking, Caller, FrontOfLimited, Keeper, Limited
from tests.waiting import wait_until, wait_until_async
from trygon import serve
from trygon.serve import Application
from trygon.serve.config import BackpressureConfig
from trygon.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError
from trygon.serve.handle import DeploymentHandle

pytestmark = pytest.mark.timeout(40)


@pytest.fixture(scope="module")
def callers(url: str) -> Iterator[DeploymentHandle]:
    app = Caller.options(num_replicas=2).bind(Limited.bind(Keeper.bind()))
    yield serve.run(app, name="callers", route_prefix="/callers")
    serve.delete("callers")


@pytest.fixture(scope="module")
def limited(callers: DeploymentHandle) -> DeploymentHandle:
    return serve.get_deployment_handle("Limited", "callers")


def app(**options: Any) -> Application:
    return Limited.options(**options).bind(Keeper.bind())


def keeper_of(name: str) -> DeploymentHandle:
    return serve.get_deployment_handle("Keeper", name)


def wait_inside(keeper: DeploymentHandle, door: str, count: int) -> None:
    wait_until(
        lambda: keeper.count.remote(door).result() == count, f"{count} requests behind the door {door}"
    )


async def gather(handle: DeploymentHandle, *args: Any, count: int) -> list[Any]:
    return list(await asyncio.gather(*(handle.remote(*args) for _ in range(count))))


# ---- max_ongoing_requests


def test_ongoing_is_exact_over_several_callers(callers: DeploymentHandle, limited: DeploymentHandle) -> None:
    async def press() -> None:
        await asyncio.gather(gather(callers.many, 300, count=4), gather(limited.step, "script", count=300))

    asyncio.run(press())

    seen = limited.seen.remote().result()
    assert (3, 0) == (seen["most"], seen["left"])
    assert Counter({"caller": 1200, "script": 300}) == Counter(seen["order"])


def test_a_slot_is_used_again_after_every_kind_of_end(limited: DeploymentHandle) -> None:
    keeper = keeper_of("callers")
    for _ in range(10):
        with pytest.raises(RayServeException):
            limited.nonsense.remote().result(timeout_s=5)
        with pytest.raises(TypeError):
            limited.step.remote(1, 2, 3).result(timeout_s=5)
        with pytest.raises(TypeError):
            list(limited.options(stream=True).step.remote())
        limited.wait.remote("ends").cancel()

    waits = [limited.wait.remote("again") for _ in range(10)]
    wait_inside(keeper, "again", 3)
    keeper.open.remote("again").result()

    assert ["again"] * 10 == [wait.result(timeout_s=5) for wait in waits]
    assert 3 == keeper.report.remote().result()["peak"]["again"]


def test_sync_methods_run_at_once_up_to_the_limit(run_app: RunApp) -> None:
    handle = run_app(app(max_ongoing_requests=4), name="threads", route_prefix=None)
    keeper = keeper_of("threads")
    waits = [handle.wait_in_thread.remote("t") for _ in range(6)]

    wait_inside(keeper, "t", 4)
    keeper.open.remote("t").result()

    assert ["t"] * 6 == [wait.result(timeout_s=5) for wait in waits]
    assert 4 == keeper.report.remote().result()["peak"]["t"]


def test_a_cancelled_sync_method_keeps_its_slot_until_it_returns(run_app: RunApp) -> None:
    handle = run_app(Blocking.options(max_ongoing_requests=2).bind(), name="late", route_prefix=None)
    stuck = handle.wait_in_thread.remote("stuck")
    wait_until(lambda: handle.count.remote("stuck").result() == 1, "the thread to wait")

    stuck.cancel()
    with pytest.raises(RequestCancelledError):
        stuck.result(timeout_s=5)
    asyncio.run(gather(handle.step, count=20))
    most_while_stuck = handle.most_steps.remote().result()
    handle.open.remote("stuck").result()
    wait_until(lambda: "stuck: opened" in handle.report.remote().result()["done"], "the thread's end")
    asyncio.run(gather(handle.step, count=50))

    assert 1 == most_while_stuck
    assert 2 == handle.most_steps.remote().result()


# ---- queues


def test_the_queue_keeps_its_order(run_app: RunApp) -> None:
    handle = run_app(app(max_ongoing_requests=1), name="order", route_prefix=None)

    async def ask() -> None:
        await asyncio.gather(*(handle.step.remote(number) for number in range(100)))

    asyncio.run(ask())

    assert list(range(100)) == handle.seen.remote().result()["order"]


def test_every_caller_gets_its_turn(run_app: RunApp) -> None:
    callers = run_app(
        Caller.options(num_replicas=3).bind(app(max_ongoing_requests=1)), name="fair", route_prefix=None
    )

    async def press() -> list[list[str]]:
        return list(await asyncio.gather(*(callers.many.remote(100) for _ in range(6))))

    assert [100] * 6 == [len(answers) for answers in asyncio.run(press())]
    seen = serve.get_deployment_handle("Limited", "fair").seen.remote().result()
    assert (1, 600) == (seen["most"], len(seen["order"]))


def test_a_lone_request_gets_in_between_a_flood(run_app: RunApp) -> None:
    callers = run_app(Caller.bind(app(max_ongoing_requests=1)), name="flood", route_prefix=None)
    lone = serve.get_deployment_handle("Limited", "flood")
    flood = callers.many.remote(20_000)
    wait_until(lambda: bool(lone.step.remote("first").result()), "the first of the lone caller")

    for number in range(5):
        lone.step.remote(number).result(timeout_s=10)

    seen = lone.seen.remote().result()
    assert seen["order"].index(4) < 20_000
    flood.cancel()


def test_the_callers_queue_is_bounded_exactly(run_app: RunApp) -> None:
    handle = run_app(app(max_ongoing_requests=2, max_queued_requests=3), name="bounded", route_prefix=None)
    keeper = keeper_of("bounded")
    fitting = [handle.wait.remote("b") for _ in range(5)]
    wait_inside(keeper, "b", 2)

    for _ in range(20):
        with pytest.raises(BackPressureError) as caught:
            handle.wait.remote("b").result(timeout_s=5)
        assert (3, 3) == (caught.value.num_queued_requests, caught.value.max_queued_requests)
        assert isinstance(caught.value, RayServeException)
    keeper.open.remote("b").result()

    assert ["b"] * 5 == [response.result(timeout_s=5) for response in fitting]
    assert 2 == keeper.report.remote().result()["peak"]["b"]


def test_each_caller_has_a_queue_of_its_own(run_app: RunApp) -> None:
    callers = run_app(
        Caller.bind(app(max_ongoing_requests=1, max_queued_requests=1)), name="own", route_prefix=None
    )
    limited, keeper = serve.get_deployment_handle("Limited", "own"), keeper_of("own")

    async def press() -> list[Any]:
        running = limited.wait.remote("q")
        await wait_until_async(lambda: entered(keeper, "q"), "the first to enter")
        waits = [running, limited.wait.remote("q"), callers.wait.remote("q"), callers.wait.remote("q")]
        refused = await asyncio.gather(
            limited.wait.remote("q"), callers.wait.remote("q"), return_exceptions=True
        )
        await keeper.open.remote("q")
        return [*refused, *await asyncio.gather(*waits, return_exceptions=True)]

    answers = asyncio.run(press())

    assert isinstance(answers[0], BackPressureError)
    assert ["q", "q"] == answers[2:4]
    # The calling replica sends its first request before it hears that there is no room: one or two fit there.
    assert 2 <= sum(isinstance(answer, BackPressureError) for answer in answers) <= 3
    assert all(answer == "q" or isinstance(answer, BackPressureError) for answer in answers)


def test_cancelled_requests_leave_the_queue(run_app: RunApp) -> None:
    handle = run_app(app(max_ongoing_requests=1, max_queued_requests=2), name="leave", route_prefix=None)
    keeper = keeper_of("leave")
    first = handle.wait.remote("x")
    wait_inside(keeper, "x", 1)

    for _ in range(20):
        queued = [handle.wait.remote("y") for _ in range(2)]
        for response in queued:
            response.cancel()
            with pytest.raises(RequestCancelledError):
                response.result(timeout_s=5)
    last = handle.wait.remote("x")
    keeper.open.remote("x").result()

    assert ["x", "x"] == [first.result(timeout_s=5), last.result(timeout_s=5)]
    assert "y" not in keeper.report.remote().result()["peak"]


async def entered(keeper: DeploymentHandle, door: str) -> bool:
    return bool(await keeper.count.remote(door) == 1)


@pytest.mark.parametrize(
    "options, status, retry_after",
    [
        ({}, 503, None),
        ({"backpressure_config": {"status_code": 429, "retry_after_s": 1.2}}, 429, "2"),
        ({"backpressure_config": BackpressureConfig(retry_after_s=7)}, 503, "7"),
    ],
)
def test_a_full_queue_answers_http_at_once(
    url: str, run_app: RunApp, options: dict[str, Any], status: int, retry_after: str | None
) -> None:
    run_app(app(max_ongoing_requests=2, max_queued_requests=1, **options), name="full", route_prefix="/full")
    keeper = keeper_of("full")

    with ThreadPoolExecutor(4) as threads, httpx.Client(base_url=url, timeout=20) as client:
        answers = [threads.submit(client.get, "/full?door=full") for _ in range(4)]
        refused = wait_until(lambda: next((one for one in answers if one.done()), None), "a refusal").result()
        wait_inside(keeper, "full", 2)
        keeper.open.remote("full").result()
        statuses = sorted(one.result().status_code for one in answers)

    assert [200, 200, 200, status] == statuses
    assert status == refused.status_code
    assert "max_queued_requests" in refused.text
    if retry_after is not None:
        assert retry_after == refused.headers["retry-after"]
    else:
        assert int(refused.headers["retry-after"]) >= 1


def test_back_pressure_of_a_child_answers_503(run_app: RunApp, client: httpx.Client) -> None:
    child = app(max_ongoing_requests=1, max_queued_requests=1)
    run_app(FrontOfLimited.bind(child), name="front", route_prefix="/front")

    answer = client.get("/front")

    assert 503 == answer.status_code
    assert "max_queued_requests" in answer.text


# ---- balance


@pytest.fixture(scope="module")
def three(url: str) -> Iterator[DeploymentHandle]:
    yield serve.run(app(num_replicas=3, max_ongoing_requests=50), name="three", route_prefix="/three")
    serve.delete("three")


def test_replicas_share_the_work(three: DeploymentHandle) -> None:
    tags = Counter(asyncio.run(gather(three.step, count=600)))

    assert 3 == len(tags)
    assert min(tags.values()) >= 50


def test_replicas_share_sequential_work(three: DeploymentHandle) -> None:
    tags = Counter(three.step.remote().result() for _ in range(150))

    assert 3 == len(tags)
    assert min(tags.values()) > 15


def test_waiting_requests_are_spread(three: DeploymentHandle) -> None:
    keeper = keeper_of("three")
    waits = [three.wait.remote("busy") for _ in range(90)]
    wait_inside(keeper, "busy", 90)

    seen = three.broadcast("seen").results(timeout_s=5)
    keeper.open.remote("busy").result()

    assert ["busy"] * 90 == [wait.result(timeout_s=5) for wait in waits]
    assert sorted(one["waiting"] for one in seen)[0] >= 20


def test_ranks_are_unique(three: DeploymentHandle) -> None:
    assert 3 == len(set(three.broadcast("step").results(timeout_s=5)))


# ---- all replicas, one replica


def test_broadcast_reaches_every_replica(three: DeploymentHandle) -> None:
    first = three.broadcast("step", "hello").results(timeout_s=5)
    again = asyncio.run(three.broadcast("step", name="hello").results_async(timeout_s=5))

    assert 3 == len(set(first))
    assert set(first) == set(again)


def test_broadcast_errors_are_raised_or_returned(three: DeploymentHandle) -> None:
    with pytest.raises(TypeError):
        three.broadcast("step", 1, 2, 3).results(timeout_s=5)
    errors = three.broadcast("step", 1, 2, 3).results(timeout_s=5, return_exceptions=True)
    assert [True] * 3 == [isinstance(error, TypeError) for error in errors]
    with pytest.raises(ValueError, match="timeout_s"):
        three.broadcast("step").results(timeout_s=-1)
    with pytest.raises(RayServeException):
        three.broadcast("nonsense").results(timeout_s=5)


def test_broadcast_times_out(three: DeploymentHandle) -> None:
    broadcast = three.broadcast("wait", "never")

    with pytest.raises(TimeoutError):
        broadcast.results(timeout_s=0.05)
    keeper_of("three").open.remote("never").result()
    assert ["never"] * 3 == broadcast.results(timeout_s=5)


def test_a_chosen_replica_takes_the_request(three: DeploymentHandle) -> None:
    async def choose() -> tuple[str, str]:
        handle = three.step
        async with handle.choose_replica() as selection:
            return selection.replica_id, await handle.dispatch(selection)

    for _ in range(10):
        chosen, answered = asyncio.run(choose())
        assert chosen.endswith(answered)


def test_selections_are_used_once_and_by_their_own_handle(
    three: DeploymentHandle, limited: DeploymentHandle
) -> None:
    async def misuse() -> None:
        async with three.choose_replica() as selection:
            with pytest.raises(ValueError, match="deployment"):
                limited.dispatch(selection)
            await three.step.dispatch(selection)
            with pytest.raises(ValueError, match="used or released"):
                three.dispatch(selection)
        async with three.choose_replica() as selection:
            pass
        with pytest.raises(ValueError, match="released"):
            three.dispatch(selection)

    asyncio.run(misuse())


def test_a_reservation_holds_a_slot(run_app: RunApp) -> None:
    handle = run_app(app(max_ongoing_requests=1), name="reserve", route_prefix=None)

    async def reserve() -> list[Any]:
        async with handle.choose_replica() as selection:
            behind = handle.step.remote("behind")
            first = await handle.step.dispatch(selection, "first")
            return [first, await behind]

    asyncio.run(reserve())

    assert ["first", "behind"] == handle.seen.remote().result()["order"]
