"""A graph three deep whose requests have a limited time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from starlette.requests import Request

from tests.integration.serve.doors import Doors
from trygon import serve
from trygon.serve.context import get_time_remaining
from trygon.serve.handle import DeploymentHandle


@serve.deployment(max_ongoing_requests=1000)
class Leaf(Doors):
    """Knows what began, and what time it had."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[str] = []

    async def __call__(self, name: str, door: str = "") -> float | None:
        self.began.append(name)
        if door:
            await self.wait(door)
        return get_time_remaining()

    def in_thread(self, name: str) -> float | None:
        self.began.append(name)
        return get_time_remaining()

    async def block(self, path: str, seconds: float) -> None:
        """Hold the loop, so that what arrives meanwhile is late when it is looked at."""
        self.began.append("block")
        Path(path).touch()
        time.sleep(seconds)

    async def begun(self) -> list[str]:
        return self.began


@serve.deployment(max_ongoing_requests=1000)
class Middle:
    """Passes on, in every way there is."""

    def __init__(self, leaf: DeploymentHandle) -> None:
        self.leaf = leaf

    async def __call__(self, name: str, door: str = "") -> Any:
        return await self.leaf.remote(name, door)

    def sync(self, name: str, door: str = "") -> Any:
        return self.leaf.remote(name, door).result()

    async def own_limit(self, name: str, door: str, timeout_s: float) -> Any:
        return await self.leaf.options(timeout_s=timeout_s).remote(name, door)

    async def swallow(self, door: str) -> str:
        try:
            await self.leaf.options(timeout_s=0.05).remote("swallowed", door)
        except TimeoutError as error:
            return type(error).__name__
        return "no error"


@serve.deployment(max_ongoing_requests=1000)
class Top:
    """Takes HTTP requests: ?name=&door=&do=."""

    def __init__(self, middle: DeploymentHandle) -> None:
        self.middle = middle

    async def __call__(self, request: Request) -> Any:
        query = request.query_params
        method = self.middle.options(method_name=query.get("do", "__call__"))
        args = (float(query["timeout"]),) if "timeout" in query else ()
        return await method.remote(query.get("name", ""), query.get("door", ""), *args)

    async def call(self, name: str, door: str = "", do: str = "__call__") -> Any:
        return await self.middle.options(method_name=do).remote(name, door)


@serve.deployment(max_ongoing_requests=1)
class Narrow:
    """One at a time, so that others wait."""

    def __init__(self) -> None:
        self.began: list[str] = []

    async def __call__(self, name: str, path: str = "") -> None:
        self.began.append(name)
        if path:
            Path(path).touch()
            await asyncio.sleep(20)

    async def begun(self) -> list[str]:
        return self.began


deep = Top.bind(Middle.bind(Leaf.bind()))
