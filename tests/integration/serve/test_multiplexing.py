"""Models are loaded by one replica, and once, whoever asks."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.serve.conftest import RunApp
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.handle import DeploymentHandle

pytestmark = pytest.mark.timeout(40)


@serve.deployment(num_replicas=3, max_ongoing_requests=400)
class Many:
    """Counts its loads."""

    def __init__(self) -> None:
        self.loads = 0
        self.door = asyncio.Event()

    @serve.multiplexed(max_num_models_per_replica=2)
    async def get_model(self, model_id: str) -> str:
        self.loads += 1
        await (self.door.wait() if model_id == "held" else asyncio.sleep(0.2))
        if model_id == "bad":
            raise ValueError("no such model")
        return f"model {model_id}"

    async def __call__(self, request: object = None) -> list[object]:
        model = await self.get_model(serve.get_multiplexed_model_id())
        return [model, os.getpid()]

    async def warm(self, pid: int, model_id: str) -> int:
        if pid in (0, os.getpid()):
            async with self.get_model.lease(model_id):
                pass
        return os.getpid()

    async def hold(self) -> int:
        await self.get_model(serve.get_multiplexed_model_id())
        await asyncio.sleep(0.5)
        return os.getpid()

    async def num_waiting(self) -> int:
        return self.get_model.statistics().num_waiting

    async def open(self) -> None:
        self.door.set()

    async def count(self) -> int:
        return self.loads


def test_a_models_requests_find_one_replica_from_every_door(run_app: RunApp, client: httpx.Client) -> None:
    handle = run_app(Many.bind())
    by_header = client.get("/", headers={"serve_multiplexed_model_id": "a"}).json()
    by_handle = [handle.options(multiplexed_model_id="a").remote().result(timeout_s=10) for _ in range(10)]

    assert "model a" == by_header[0]
    assert [by_header] * 10 == by_handle
    assert 1 == sum(handle.broadcast("count").results(timeout_s=10))


def test_many_cold_requests_load_a_model_once(run_app: RunApp) -> None:
    handle = run_app(Many.options(num_replicas=1).bind())
    chosen = handle.options(multiplexed_model_id="b")
    responses = [chosen.remote() for _ in range(300)]

    assert {"model b"} == {response.result(timeout_s=20)[0] for response in responses}
    assert 1 == handle.count.remote().result(timeout_s=10)


def test_a_failed_load_reaches_the_caller(run_app: RunApp) -> None:
    handle = run_app(Many.bind()).options(multiplexed_model_id="bad")

    with pytest.raises(ValueError, match="no such model"):
        handle.remote().result(timeout_s=10)


def pid_of(handle: DeploymentHandle, model_id: str) -> int:
    return handle.options(multiplexed_model_id=model_id).remote().result(timeout_s=10)[1]


def test_requests_find_a_model_wherever_it_is(run_app: RunApp, client: httpx.Client) -> None:
    handle = run_app(Many.bind())
    # Each caller asks for news with its first request for a model.
    pid_of(handle, "first")
    client.get("/", headers={"serve_multiplexed_model_id": "first"})
    for number, pid in enumerate(handle.broadcast("warm", -1, "").results(timeout_s=10)):
        handle.broadcast("warm", pid, f"m{number}").results(timeout_s=10)

        assert pid == pid_of(handle, f"m{number}")
        assert pid == client.get("/", headers={"serve_multiplexed_model_id": f"m{number}"}).json()[1]


def test_a_thousand_cold_requests_from_two_doors_load_a_model_once_in_the_pool(
    run_app: RunApp, url: str
) -> None:
    handle = run_app(Many.options(max_ongoing_requests=2000).bind())
    chosen = handle.options(multiplexed_model_id="held")

    async def by_http() -> list[object]:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            asked = [client.get("/", headers={"serve_multiplexed_model_id": "held"}) for _ in range(50)]
            return [answer.json()[0] for answer in await asyncio.gather(*asked)]

    with ThreadPoolExecutor(1) as thread:
        http = thread.submit(asyncio.run, by_http())
        responses = [chosen.remote() for _ in range(950)]
        wait_until(lambda: sum(handle.broadcast("num_waiting").results(timeout_s=10)) == 1000, "all to wait")
        handle.broadcast("open").results(timeout_s=10)
        answers = http.result(20) + [response.result(timeout_s=20)[0] for response in responses]

    assert ["model held"] * 1000 == answers
    assert 1 == sum(handle.broadcast("count").results(timeout_s=10))


def test_a_full_replica_makes_its_model_spread(run_app: RunApp) -> None:
    handle = run_app(Many.options(max_ongoing_requests=2).bind())
    pid_of(handle, "hot")
    responses = [handle.options(multiplexed_model_id="hot").hold.remote() for _ in range(6)]

    assert 3 == len({response.result(timeout_s=20) for response in responses})
