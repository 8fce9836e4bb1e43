"""Deployments for the tests of batching."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request

from trygon import serve
from trygon.serve.context import _get_serve_batch_request_context


@serve.deployment(max_ongoing_requests=100)
class Doubler:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self.double.set_max_batch_size(user_config["size"])
        self.double.set_batch_wait_timeout_s(user_config["wait_s"])

    @serve.batch
    async def double(self, numbers: list[int]) -> list[int]:
        self.sizes.append(len(numbers))
        assert len(numbers) == len(_get_serve_batch_request_context())
        return [2 * number for number in numbers]

    async def __call__(self, request: Request) -> int:
        return await self.double(int(request.query_params["number"]))

    def seen(self) -> list[int]:
        return self.sizes


@serve.deployment(max_ongoing_requests=20)
class Requests:
    """The batched method takes the requests themselves, as in the classic example."""

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.05)
    async def __call__(self, requests: list[Request]) -> list[str]:
        return [f"{request.query_params['name']} of {len(requests)}" for request in requests]


@serve.deployment(max_ongoing_requests=20)
@serve.batch(max_batch_size=2, batch_wait_timeout_s=0.05)
async def batched_function(requests: list[Request]) -> list[str]:
    return [str(len(requests)) for _ in requests]


@serve.deployment(max_ongoing_requests=20)
class Counter:
    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.05)
    async def count(self, limits: list[int]) -> AsyncIterator[list[Any]]:
        for step in range(max(limits) + 1):
            yield [StopIteration if step >= limit else step for limit in limits]


@serve.deployment(max_ongoing_requests=1000)
class Violent:
    """Takes a random time, and fails for every 97th number."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    @serve.batch(
        max_batch_size=32, batch_wait_timeout_s=0.002, max_concurrent_batches=3, bisect_on_error=True
    )
    async def work(self, numbers: list[int]) -> list[int]:
        await asyncio.sleep(self.chance.random() * 0.002)
        if any(number % 97 == 0 for number in numbers):
            raise ValueError(f"bad among {numbers}")
        return [number * number for number in numbers]

    async def __call__(self, number: int) -> int:
        return await self.work(number)

    def statistics(self) -> dict[str, int]:
        statistics = self.work.statistics()
        return {"waiting": statistics.num_waiting, "running": statistics.num_running}


@serve.deployment(max_ongoing_requests=100)
class Blocking:
    """Its batches block the loop, so that no timeout is seen while one runs."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.0)
    async def work(self, numbers: list[int]) -> list[int]:
        self.seen += numbers
        await asyncio.sleep(0.3)
        return numbers

    async def __call__(self, request: Request) -> int:
        return await self.work(int(request.query_params["number"]))

    async def begun(self) -> list[int]:
        return self.seen
