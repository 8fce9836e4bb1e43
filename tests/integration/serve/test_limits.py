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
from tests.integration.serve.limit_apps import Caller, Limited
from tests.waiting import wait_until, wait_until_async
from trygon import serve
from trygon.serve.config import BackpressureConfig
from trygon.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError
from trygon.serve.handle import DeploymentHandle

pytestmark = pytest.mark.timeout(40)


@pytest.fixture(scope="module")
def callers(url: str) -> Iterator[DeploymentHandle]:
    app = Caller.options(num_replicas=2).bind(Limited.bind())
    yield serve.run(app, name="callers", route_prefix="/callers")
    serve.delete("callers")


@pytest.fixture(scope="module")
def limited(callers: DeploymentHandle) -> DeploymentHandle:
    return serve.get_deployment_handle("Limited", "callers")


async def gather(handle: DeploymentHandle, *args: Any, count: int) -> list[Any]:
    return list(await asyncio.gather(*(handle.remote(*args) for _ in range(count))))


# ---- max_ongoing_requests


def test_ongoing_is_exact_over_several_callers(callers: DeploymentHandle, limited: DeploymentHandle) -> None:
    async def press() -> None:
        await asyncio.gather(
            gather(callers.many, 300, count=4), gather(limited.step, "script", count=300)
        )

    asyncio.run(press())

    seen = limited.seen.remote().result()
    assert (3, 0) == (seen["most"], seen["left"])
    assert Counter({"caller": 1200, "script": 300}) == Counter(seen["order"])


def test_a_slot_is_used_again_after_every_kind_of_end(limited: DeploymentHandle) -> None:
    for _ in range(10):
        with pytest.raises(RayServeException):
            limited.nonsense.remote().result(timeout_s=5)
        with pytest.raises(TypeError):
            limited.step.remote(1, 2, 3).result(timeout_s=5)
        with pytest.raises(TypeError):
            list(limited.options(stream=True).step.remote())
        limited.wait.remote("ends").cancel()

    responses = [limited.wait.remote("again") for _ in range(3)]
    wait_until_full(limited, responses)
    assert 3 == limited_peak(limited, "again", responses)


def wait_until_full(handle: DeploymentHandle, responses: list[Any]) -> None:
    """Wait until another request has to queue: nothing of it is answered while the doors are shut."""
    probe = handle.count.remote("again")
    with pytest.raises(TimeoutError):
        probe.result(timeout_s=0.3)
    responses[0].cancel()
    wait_until(lambda: probe.result(timeout_s=5) >= 2, "the queued request")


def limited_peak(handle: DeploymentHandle, door: str, responses: list[Any]) -> int:
    for response in responses:
        response.cancel()
    return int(handle.report.remote().result(timeout_s=5)["peak"][door])


def test_sync_methods_run_at_once_up_to_the_limit(run_app: RunApp) -> None:
    handle = run_app(Limited.options(max_ongoing_requests=4).bind(), name="threads", route_prefix=None)
    waits = [handle.wait_in_thread.remote("t") for _ in range(3)]

    wait_until(lambda: handle.count.remote("t").result() == 3, "three threads to wait")
    handle.open.remote("t").result()

    assert ["t"] * 3 == [wait.result(timeout_s=5) for wait in waits]


def test_a_cancelled_sync_method_keeps_its_slot_until_it_returns(run_app: RunApp) -> None:
    app = Limited.options(max_ongoing_requests=2).bind()
    handle = run_app(app, name="late", route_prefix=None)
    stuck = handle.wait_in_thread.remote("stuck")
    wait_until(lambda: handle.count.remote("stuck").result() == 1, "the thread to wait")

    stuck.cancel()
    with pytest.raises(RequestCancelledError):
        stuck.result(timeout_s=5)
    asyncio.run(gather(handle.step, count=20))
    seen = handle.seen.remote().result()
    handle.open.remote("stuck").result()
    wait_until(lambda: "stuck: opened" in handle.report.remote().result()["done"], "the thread's end")
    asyncio.run(gather(handle.step, count=50))

    assert 1 == seen["most"]
    assert 2 == handle.seen.remote().result()["most"]


# ---- queues


def test_the_queue_keeps_its_order(run_app: RunApp) -> None:
    handle = run_app(Limited.options(max_ongoing_requests=1).bind(), name="order", route_prefix=None)

    async def ask() -> None:
        await asyncio.gather(*(handle.step.remote(number) for number in range(100)))

    asyncio.run(ask())

    assert list(range(100)) == handle.seen.remote().result()["order"]


def test_every_caller_gets_its_turn(run_app: RunApp) -> None:
    app = Caller.options(num_replicas=3).bind(Limited.options(max_ongoing_requests=1).bind())
    callers = run_app(app, name="fair", route_prefix=None)

    async def press() -> list[list[str]]:
        return list(await asyncio.gather(*(callers.many.remote(100) for _ in range(6))))

    assert [100] * 6 == [len(answers) for answers in asyncio.run(press())]
    seen = serve.get_deployment_handle("Limited", "fair").seen.remote().result()
    assert (1, 600) == (seen["most"], len(seen["order"]))


def queue_app(ongoing: int, queued: int, **options: Any) -> Any:
    return Limited.options(max_ongoing_requests=ongoing, max_queued_requests=queued, **options).bind()


def test_the_callers_queue_is_bounded_exactly(run_app: RunApp) -> None:
    handle = run_app(queue_app(2, 3), name="bounded", route_prefix=None)

    async def press() -> tuple[list[Any], list[Any]]:
        responses = [handle.wait.remote("b") for _ in range(5)]
        more = [handle.wait.remote("b") for _ in range(20)]
        refused = await asyncio.gather(*more, return_exceptions=True)
        for response in responses[:2]:
            response.cancel()
        return refused, await asyncio.gather(
            *responses[:2], handle.open.remote("b"), *responses[2:], return_exceptions=True
        )

    refused, answers = asyncio.run(press())

    assert [BackPressureError] * 20 == [type(error) for error in refused]
    assert (3, 3) == (refused[0].num_queued_requests, refused[0].max_queued_requests)
    assert isinstance(refused[0], RayServeException)
    assert [RequestCancelledError] * 2 == [type(answer) for answer in answers[:2]]
    # `open` had to queue too, so it was the one too many, or it opened the door for the others.
    opened = [answer for answer in answers[2:] if answer == "b" or answer is None]
    assert len(opened) + sum(isinstance(answer, BackPressureError) for answer in answers) == 4


def test_cancelled_requests_leave_the_queue(run_app: RunApp) -> None:
    handle = run_app(queue_app(2, 2), name="leave", route_prefix=None)

    async def press() -> list[Any]:
        first = handle.wait.remote("x")
        await wait_until_async(lambda: entered(handle, "x"), "the first to enter")
        second = handle.wait.remote("x")
        for _ in range(20):
            queued = [handle.wait.remote("y") for _ in range(2)]
            for response in queued:
                response.cancel()
        last = handle.wait.remote("x")
        second.cancel()
        await handle.open.remote("x")
        return [await first, await last]

    assert ["x", "x"] == asyncio.run(press())


async def entered(handle: DeploymentHandle, door: str) -> bool:
    return bool(await handle.count.remote(door) == 1)


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
    handle = run_app(queue_app(2, 1, **options), name="full", route_prefix="/full")

    with ThreadPoolExecutor(4) as threads, httpx.Client(base_url=url, timeout=20) as client:
        first = threads.submit(client.get, "/full?door=full")
        wait_until(lambda: handle.count.remote("full").result() == 1, "the first request to enter")
        others = [threads.submit(client.get, "/full?door=full") for _ in range(3)]
        # One more runs, one waits, one is refused.
        refused = wait_until(lambda: next((one for one in others if one.done()), None), "a refusal").result()
        while (opened := try_open(client, handle)) is not True:
            assert isinstance(opened, BackPressureError)
        statuses = sorted(one.result().status_code for one in [first, *others])

    assert [200, 200, 200, status] == statuses
    assert status == refused.status_code
    assert "max_queued_requests" in refused.text
    if retry_after is not None:
        assert retry_after == refused.headers["retry-after"]
    else:
        assert int(refused.headers.get("retry-after", "1")) >= 1


def try_open(client: httpx.Client, handle: DeploymentHandle) -> bool | Exception:
    try:
        # This process has a queue of its own, so the ingress's full one does not refuse it.
        handle.open.remote("full").result(timeout_s=10)
    except BackPressureError as error:
        return error
    return True


def test_back_pressure_of_a_child_answers_503(run_app: RunApp, client: httpx.Client) -> None:
    from tests.integration.serve.limit_apps import FrontOfLimited

    child = Limited.options(max_ongoing_requests=1, max_queued_requests=1).bind()
    run_app(FrontOfLimited.bind(child), name="front", route_prefix="/front")

    answer = client.get("/front")

    assert 503 == answer.status_code
    assert "max_queued_requests" in answer.text


# ---- balance


@pytest.fixture(scope="module")
def three(url: str) -> Iterator[DeploymentHandle]:
    app = Limited.options(num_replicas=3, max_ongoing_requests=50).bind()
    yield serve.run(app, name="three", route_prefix="/three")
    serve.delete("three")


def test_replicas_share_the_work(three: DeploymentHandle) -> None:
    tags = Counter(asyncio.run(gather(three.step, count=600)))

    assert 3 == len(tags)
    assert min(tags.values()) > 100


def test_replicas_share_sequential_work(three: DeploymentHandle) -> None:
    tags = Counter(three.step.remote().result() for _ in range(150))

    assert 3 == len(tags)
    assert min(tags.values()) > 15


def test_a_busy_replica_gets_less(three: DeploymentHandle) -> None:
    async def press() -> Counter[str]:
        busy = [three.wait.remote("busy") for _ in range(30)]
        first = three.broadcast("count", "busy")
        counts = sorted(await first.results_async(timeout_s=5))
        assert 30 == sum(counts)
        assert counts[0] >= 5
        tags = Counter(await gather(three.step, count=60))
        await three.broadcast("open", "busy").results_async(timeout_s=5)
        assert ["busy"] * 30 == [await one for one in busy]
        return tags

    assert 3 == len(asyncio.run(press()))


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
    three.broadcast("open", "never").results(timeout_s=5)
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
    handle = run_app(Limited.options(max_ongoing_requests=1).bind(), name="reserve", route_prefix=None)

    async def reserve() -> list[Any]:
        async with handle.choose_replica() as selection:
            behind = handle.step.remote("behind")
            first = await handle.step.dispatch(selection, "first")
            return [first, await behind]

    asyncio.run(reserve())

    assert ["first", "behind"] == handle.seen.remote().result()["order"]
