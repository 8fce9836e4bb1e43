"""Generators through a handle: items as they come, ends, errors, early leaving, slow readers."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.serve.call_apps import Calls
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import RequestCancelledError, SerializationError, TaskError
from trygon.serve.handle import DeploymentHandle, DeploymentResponseGenerator

pytestmark = pytest.mark.timeout(30)

BOTH = pytest.mark.parametrize("method", ["numbers", "anumbers"])


@pytest.fixture(scope="module")
def calls(url: str) -> Iterator[DeploymentHandle]:
    yield serve.run(Calls.bind(), name="calls", route_prefix="/calls")
    serve.delete("calls")


def stream(calls: DeploymentHandle, method: str, *args: Any) -> DeploymentResponseGenerator:
    response = calls.options(method_name=method, stream=True).remote(*args)
    assert isinstance(response, DeploymentResponseGenerator)
    return response


@BOTH
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_items_come_in_order_in_sync_code(calls: DeploymentHandle, method: str, count: int) -> None:
    assert list(range(count)) == list(stream(calls, method, count))


@BOTH
def test_items_come_in_order_in_a_loop(calls: DeploymentHandle, method: str) -> None:
    async def read() -> list[int]:
        return [item async for item in stream(calls, method, 5000)]

    assert list(range(5000)) == asyncio.run(read())


@BOTH
def test_short_streams_lose_nothing(calls: DeploymentHandle, method: str) -> None:
    # The last item and the end often arrive together while the reader looks.
    for _ in range(150):
        assert [0, 1] == list(stream(calls, method, 2))


@pytest.mark.parametrize("method", ["some_then_error", "asome_then_error"])
def test_error_after_items_comes_after_the_items(calls: DeploymentHandle, method: str) -> None:
    for _ in range(50):
        items = []
        with pytest.raises(ValueError, match="after the last") as caught:
            items.extend(item for item in _noting(stream(calls, method, 3), items))
        assert [0, 1, 2] == items
        assert isinstance(caught.value, TaskError)


def _noting(response: Iterator[Any], items: list[Any]) -> Iterator[Any]:
    for item in response:
        items.append(item)
    yield from ()


def test_first_item_comes_before_the_second_is_made(calls: DeploymentHandle) -> None:
    response = stream(calls, "gated", "first-item")

    assert "first" == next(response)
    calls.open.remote("first-item").result()
    assert ["second"] == list(response)


@BOTH
def test_stream_of_big_items(calls: DeploymentHandle, method: str) -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(200_000)

    for item in stream(calls, "echo_many", array, 5):
        assert np.array_equal(array, item)


def test_a_generator_without_stream_is_refused(calls: DeploymentHandle) -> None:
    for method in ("numbers", "anumbers", "returns_generator"):
        with pytest.raises(TypeError, match="stream=True"):
            calls.options(method_name=method).remote(1).result(timeout_s=5)


def test_stream_of_a_plain_method_is_refused(calls: DeploymentHandle) -> None:
    for method in ("echo", "aecho"):
        with pytest.raises(TypeError, match="without stream=True"):
            list(stream(calls, method, 1))


def test_a_method_may_return_a_generator(calls: DeploymentHandle) -> None:
    assert [0, 1, 2] == list(stream(calls, "returns_generator", 3))


def test_a_stream_is_neither_awaited_nor_a_result(calls: DeploymentHandle) -> None:
    response = stream(calls, "numbers", 1)

    async def wait() -> None:
        await response  # type: ignore[misc]

    with pytest.raises(TypeError, match="async for"):
        asyncio.run(wait())
    with pytest.raises(TypeError, match="`for`"):
        response.result()
    assert [0] == list(response)


def test_sync_iteration_in_a_running_loop_is_refused(calls: DeploymentHandle) -> None:
    async def read() -> None:
        for _ in stream(calls, "numbers", 1):
            pass

    with pytest.raises(RuntimeError, match="async for"):
        asyncio.run(read())


def test_an_item_that_cannot_travel_ends_the_stream(calls: DeploymentHandle) -> None:
    response = stream(calls, "bad_item")

    assert 1 == next(response)
    with pytest.raises(SerializationError, match="type lock"):
        next(response)
    with pytest.raises(SerializationError):
        next(response)


def test_an_ended_stream_stays_ended(calls: DeploymentHandle) -> None:
    response = stream(calls, "numbers", 1)

    assert [0] == list(response)
    assert [] == list(response)


@BOTH
def test_leaving_early_closes_the_generator(calls: DeploymentHandle, method: str) -> None:
    kind = "async" if method == "anumbers" else "sync"
    before = calls.what_closed.remote().result().count(kind)

    for item in stream(calls, method, 1_000_000):
        if item == 3:
            break
    gc.collect()

    wait_until(
        lambda: calls.what_closed.remote().result().count(kind) == before + 1, "the generator's finally"
    )


def test_leaving_early_in_a_loop_closes_the_generator(calls: DeploymentHandle) -> None:
    async def read() -> None:
        response = stream(calls, "gated", "left-in-loop")
        async for _ in response:
            break
        await response.aclose()

    asyncio.run(read())

    wait_until(lambda: "left-in-loop" in calls.what_closed.remote().result(), "the generator's finally")


def test_cancel_ends_a_stream_that_waits(calls: DeploymentHandle) -> None:
    response = stream(calls, "gated", "cancelled-stream")
    assert "first" == next(response)

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, response)
        wait_until(lambda: calls.count.remote("cancelled-stream").result() == 1, "the generator to wait")
        response.cancel()
        with pytest.raises(RequestCancelledError):
            waiting.result(5)
    assert response.cancelled()
    wait_until(lambda: "cancelled-stream" in calls.what_closed.remote().result(), "the generator's finally")


@BOTH
def test_a_reader_that_stops_stops_the_generator(calls: DeploymentHandle, method: str) -> None:
    before = calls.how_many.remote().result()
    response = stream(calls, method, 5000)
    assert 0 == next(response)

    made = _settled(lambda: calls.how_many.remote().result() - before)

    assert 1 <= made < 1000
    assert list(range(1, 5000)) == list(response)


def _settled(ask: Any) -> int:
    """Return a number once it has stayed the same for many questions."""
    last, same = -1, 0
    while same < 30:
        now = ask()
        same = same + 1 if now == last else 0
        last = now
    return int(last)


def test_a_thread_reads_while_others_call(calls: DeploymentHandle) -> None:
    def read(_: int) -> int:
        return sum(stream(calls, "anumbers", 500))

    with ThreadPoolExecutor(6) as threads:
        assert [sum(range(500))] * 12 == list(threads.map(read, range(12)))


def test_a_dropped_response_leaves_no_thread(calls: DeploymentHandle) -> None:
    before = threading.active_count()

    for _ in range(20):
        next(stream(calls, "numbers", 10))

    assert before == threading.active_count()
