"""Deployments that count: how many requests at once, on which replica, in which order."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from tests.integration.serve.doors import Doors
from trygon import serve
from trygon.serve.handle import DeploymentHandle


@serve.deployment(max_ongoing_requests=1000)
class Keeper(Doors):
    """Keeps the doors, so that they can be opened while every slot of `Limited` is taken."""


@serve.deployment(max_ongoing_requests=3)
class Limited:
    """Remembers which requests it began, in order."""

    def __init__(self, keeper: DeploymentHandle) -> None:
        self.keeper = keeper
        self.order: list[Any] = []
        self.ongoing = 0
        self.most = 0
        self.waiting = 0

    async def __call__(self, request: Any = None) -> str:
        door = request.query_params["door"] if isinstance(request, Request) else request
        return await self.wait(door)

    async def wait(self, door: str) -> str:
        self.waiting += 1
        try:
            return str(await self.keeper.wait.remote(door))
        finally:
            self.waiting -= 1

    def wait_in_thread(self, door: str) -> str:
        return str(self.keeper.wait_in_thread.remote(door).result(timeout_s=30))

    async def step(self, name: Any = None) -> str:
        """Take one turn of the loop or a few, counting who else is here."""
        self.order.append(name)
        self.ongoing += 1
        self.most = max(self.most, self.ongoing)
        for _ in range(3):
            await asyncio.sleep(0)
        self.ongoing -= 1
        return serve.get_replica_context().replica_tag

    async def nap(self) -> None:
        """Take a moment in which others may be served."""
        self.ongoing += 1
        self.most = max(self.most, self.ongoing)
        await asyncio.sleep(0.002)
        self.ongoing -= 1

    async def seen(self) -> dict[str, Any]:
        return {"order": self.order, "most": self.most, "left": self.ongoing, "waiting": self.waiting}


@serve.deployment
class Blocking(Doors):
    """Has its doors inside, for what blocks a thread of the replica itself."""

    def __init__(self) -> None:
        super().__init__()
        self.ongoing = 0
        self.most = 0

    async def step(self) -> None:
        self.ongoing += 1
        self.most = max(self.most, self.ongoing)
        for _ in range(3):
            await asyncio.sleep(0)
        self.ongoing -= 1

    async def most_steps(self) -> int:
        return self.most


@serve.deployment(max_ongoing_requests=1000)
class Caller:
    """A second caller of `Limited`, in a process of its own."""

    def __init__(self, limited: DeploymentHandle) -> None:
        self.limited = limited

    async def many(self, count: int) -> list[str]:
        return list(await asyncio.gather(*(self.limited.step.remote("caller") for _ in range(count))))

    async def wait(self, door: str) -> str:
        return str(await self.limited.wait.remote(door))


@serve.deployment(max_ongoing_requests=10)
class FrontOfLimited:
    """Asks its child more often at once than the child's queue holds."""

    def __init__(self, limited: DeploymentHandle) -> None:
        self.limited = limited

    async def __call__(self, request: Request) -> Any:
        waits = [self.limited.wait.remote("front") for _ in range(3)]
        try:
            return await waits[2]
        finally:
            for wait in waits:
                wait.cancel()
