"""Models are loaded by one replica, and once, whoever asks."""

from __future__ import annotations

import asyncio
import os

import httpx
import pytest

from tests.integration.serve.conftest import RunApp
from trygon import serve

pytestmark = pytest.mark.timeout(40)


@serve.deployment(num_replicas=3, max_ongoing_requests=400)
class Many:
    """Counts its loads."""

    def __init__(self) -> None:
        self.loads = 0

    @serve.multiplexed(max_num_models_per_replica=2)
    async def get_model(self, model_id: str) -> str:
        self.loads += 1
        await asyncio.sleep(0.2)
        if model_id == "bad":
            raise ValueError("no such model")
        return f"model {model_id}"

    async def __call__(self, request: object = None) -> list[object]:
        model = await self.get_model(serve.get_multiplexed_model_id())
        return [model, os.getpid()]

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
