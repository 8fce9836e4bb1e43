"""A graph three deep that writes down what began, and when it was cancelled."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from starlette.requests import Request

from trygon import serve
from trygon.serve.context import get_time_remaining
from trygon.serve.handle import DeploymentHandle

_OPTIONS: dict[str, Any] = {"max_ongoing_requests": 2000, "logging_config": {"enable_access_log": False}}


@serve.deployment(**_OPTIONS)
class Leaf:
    """Works until it is cancelled, or until its thread is let go."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        #: What had no time left when it began.
        self.late: list[str] = []
        self.cancelled: dict[str, float] = {}
        self.gate = threading.Event()
        self.in_threads = 0

    def _begin(self, name: str) -> None:
        self.began[name] = time.monotonic()
        if get_time_remaining() == 0.0:
            self.late.append(name)

    async def work(self, name: str, seconds: float) -> None:
        self._begin(name)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled[name] = time.monotonic()
            raise

    def block(self, name: str) -> None:
        self._begin(name)
        self.in_threads += 1
        self.gate.wait(60)
        self.in_threads -= 1

    async def open(self) -> None:
        self.gate.set()

    async def seen(self) -> dict[str, Any]:
        return {
            "began": self.began,
            "late": self.late,
            "cancelled": self.cancelled,
            "in_threads": self.in_threads,
        }


@serve.deployment(**_OPTIONS)
class Middle:
    """Waits as long as it is told, then calls."""

    def __init__(self, leaf: DeploymentHandle) -> None:
        self.leaf = leaf
        self.cancelled: dict[str, float] = {}

    async def pass_on(self, do: str, name: str, pause_s: float, seconds: float) -> None:
        try:
            await asyncio.sleep(pause_s)
            args = (name,) if do == "block" else (name, seconds)
            await self.leaf.options(method_name=do).remote(*args)
        except asyncio.CancelledError:
            self.cancelled[name] = time.monotonic()
            raise

    async def seen(self) -> dict[str, float]:
        return self.cancelled


@serve.deployment(**_OPTIONS)
class Top:
    """Takes requests: ?name=&do=&pause=&seconds=."""

    def __init__(self, middle: DeploymentHandle) -> None:
        self.middle = middle

    async def __call__(self, request: Request) -> str:
        query = request.query_params
        await self.middle.pass_on.remote(
            query.get("do", "work"),
            query["name"],
            float(query.get("pause", 0)),
            float(query.get("seconds", 60)),
        )
        return "done"


app = Top.bind(Middle.bind(Leaf.bind()))
