"""Deployments in several versions, for redeploying under load; one can be told to fail."""

from __future__ import annotations

import os
from typing import Any

from starlette.requests import Request

from tests.integration.serve.doors import Doors
from trygon import serve
from trygon.serve.handle import DeploymentHandle


@serve.deployment(name="Version", max_ongoing_requests=20)
class Version(Doors):
    def __init__(self, version: int, child: DeploymentHandle | None = None) -> None:
        super().__init__()
        self.version = version
        self.child = child

    async def __call__(self, request: Any = None) -> list[Any]:
        if isinstance(request, Request) and (door := request.query_params.get("door")):
            await self.wait(door)
        below = await self.child.remote() if self.child is not None else None
        return [self.version, below, os.getpid()]


@serve.deployment(name="Version")
class FailsToStart:
    def __init__(self, version: int) -> None:
        raise ValueError(f"version {version} has no model file")


@serve.deployment(name="Version")
class DiesAtStart:
    def __init__(self) -> None:
        os._exit(7)


@serve.deployment(name="Version")
class Sick:
    def check_health(self) -> None:
        raise RuntimeError("the model answers nonsense")


@serve.deployment(name="Version", user_config={"a": 1})
class NotConfigurable:
    pass


@serve.deployment(name="Version", user_config={"a": 1})
class FailsToReconfigure:
    def reconfigure(self, config: Any) -> None:
        raise ValueError(f"cannot take {config}")


@serve.deployment(name="Adjustable", max_ongoing_requests=4)
class Adjustable:
    """Says what it is, and what it was told since it started."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.config: Any = None
        self.times = 0

    def reconfigure(self, config: Any) -> None:
        if config == "impossible":
            raise ValueError("no such threshold")
        self.config = config
        self.times += 1

    def __call__(self, request: Any = None) -> dict[str, Any]:
        return {
            "version": self.version,
            "config": self.config,
            "times": self.times,
            "world_size": serve.get_replica_context().world_size,
            "rank": serve.get_replica_context().rank.rank,
            "pid": os.getpid(),
        }
