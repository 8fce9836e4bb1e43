"""`serve.batch` in replicas: over HTTP, through handles, with violence."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.serve.batch_apps import (
    Blocking,
    Counter,
    Doubler,
    Requests,
    Violent,
    batched_function,
)
from tests.integration.serve.conftest import RunApp
from tests.waiting import wait_until
from trygon.serve.exceptions import RequestCancelledError

pytestmark = pytest.mark.timeout(60)

CONFIG = {"size": 4, "wait_s": 0.5}


def test_requests_over_http_share_batches(run_app: RunApp, client: httpx.Client) -> None:
    handle = run_app(Doubler.options(user_config=CONFIG).bind())

    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda number: client.get("/", params={"number": number}).json(), range(8))
        )

    assert [2 * number for number in range(8)] == answers
    assert [4, 4] == handle.seen.remote().result(timeout_s=10)


def test_a_batched_method_is_called_through_a_handle(run_app: RunApp) -> None:
    handle = run_app(Doubler.options(user_config=CONFIG).bind())

    calls = [handle.double.remote(number) for number in range(10)]

    assert [2 * number for number in range(10)] == [call.result(timeout_s=10) for call in calls]
    assert [4, 4, 2] == handle.seen.remote().result(timeout_s=10)


def test_reconfigure_changes_the_size_while_it_serves(run_app: RunApp) -> None:
    run_app(Doubler.options(user_config=CONFIG).bind())
    handle = run_app(Doubler.options(user_config={"size": 2, "wait_s": 0.5}).bind())

    calls = [handle.double.remote(number) for number in range(4)]

    assert [0, 2, 4, 6] == [call.result(timeout_s=10) for call in calls]
    assert [2, 2] == handle.seen.remote().result(timeout_s=10)


def test_a_batched_call_method_takes_the_requests_themselves(run_app: RunApp, client: httpx.Client) -> None:
    run_app(Requests.bind())

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda name: client.get("/", params={"name": name}).text, "abcd"))

    assert ["a of 4", "b of 4", "c of 4", "d of 4"] == answers


def test_a_batched_function_is_a_deployment(run_app: RunApp, client: httpx.Client) -> None:
    run_app(batched_function.bind())

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: client.get("/").text, range(2)))

    assert ["2", "2"] == answers


def test_a_batched_generator_streams_through_a_handle(run_app: RunApp) -> None:
    handle = run_app(Counter.bind()).options(stream=True)

    streams = [handle.count.remote(limit) for limit in (3, 0, 5)]

    assert [[0, 1, 2], [], [0, 1, 2, 3, 4]] == [list(stream) for stream in streams]


def test_a_request_that_timed_out_in_the_queue_never_reaches_the_function(
    run_app: RunApp, client: httpx.Client
) -> None:
    handle = run_app(Blocking.bind())

    def ask(number: int, timeout_s: str) -> httpx.Response:
        headers = {"x-request-timeout-seconds": timeout_s}
        return client.get("/", params={"number": number}, headers=headers)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, 1, "10")
        wait_until(lambda: [1] == handle.begun.remote().result(timeout_s=10), "the first batch runs")
        late = threads.submit(ask, 2, "0.05")
        assert 408 == late.result().status_code
        assert 200 == first.result().status_code

    assert 200 == ask(3, "10").status_code
    assert [1, 3] == handle.begun.remote().result(timeout_s=10)


def test_ten_thousand_items_with_failures_and_cancellations_each_get_their_own_answer(
    run_app: RunApp,
) -> None:
    seed = 20_260
    handle = run_app(Violent.bind(seed))
    chance = random.Random(seed)

    async def one(number: int, room: asyncio.Semaphore) -> Any:
        async with room:
            response = handle.remote(number)
            if number % 13 == 0:
                await asyncio.sleep(chance.random() * 0.003)
                response.cancel()
            try:
                return await response
            except (ValueError, RequestCancelledError) as error:
                return error

    async def main() -> list[Any]:
        room = asyncio.Semaphore(300)
        return await asyncio.gather(*(one(number, room) for number in range(10_000)))

    answers = asyncio.run(main())

    num_cancelled = 0
    for number, answer in enumerate(answers):
        if number % 13 == 0 and isinstance(answer, RequestCancelledError):
            num_cancelled += 1
        elif number % 97 == 0:
            assert isinstance(answer, ValueError), f"{number}: {answer!r}"
            assert f"bad among [{number}]" in str(answer)
        else:
            assert number * number == answer
    assert num_cancelled > 100
    wait_until(
        lambda: {"waiting": 0, "running": 0} == handle.statistics.remote().result(timeout_s=10),
        "nothing is left in the queue",
    )
