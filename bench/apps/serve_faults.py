"""A deployment that computes, waits, blocks or dies as it is told; one before it; one that starts programs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from typing import Any

from starlette.requests import Request

from trygon import serve
from trygon.serve.handle import DeploymentHandle

_QUIET = {"enable_access_log": False}


@serve.deployment(max_ongoing_requests=100, logging_config=_QUIET)
class Worker:
    """Uses the processor for `work_ms`, waits for `wait_ms`, and tells its process id and label."""

    def __init__(self, label: int = 0, work_ms: float = 1.0, wait_ms: float = 5.0) -> None:
        self.label = label
        self.work_s = work_ms / 1000
        self.wait_s = wait_ms / 1000

    async def __call__(self, request: Request) -> dict[str, Any]:
        query = request.query_params
        if "die" in query:
            os._exit(9)
        if "block" in query:
            time.sleep(float(query["block"]))
        if "now" in query:
            return {"now": time.time()}
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """Do the work; also what a handle calls."""
        # Processor time of the loop's thread: two replicas on one core do not share the work.
        end = time.thread_time() + self.work_s
        while time.thread_time() < end:
            pass
        await asyncio.sleep(self.wait_s)
        return {"pid": os.getpid(), "label": self.label}


@serve.deployment(max_ongoing_requests=100, logging_config=_QUIET)
class Front:
    """Asks a worker through a handle and says whether it is of its own version."""

    def __init__(self, label: int, worker: DeploymentHandle) -> None:
        self.label = label
        self.worker = worker

    async def __call__(self, _: Request) -> dict[str, Any]:
        below = await self.worker.answer.remote()
        return {"pid": os.getpid(), "label": self.label, "same": below["label"] == self.label}


@serve.deployment(num_replicas=2, max_ongoing_requests=100, logging_config=_QUIET)
class Parent:
    """Has two programs running, one of them in a session of its own."""

    def __init__(self) -> None:
        self.children = [
            subprocess.Popen(["sleep", "600"]),
            subprocess.Popen(["sleep", "600"], start_new_session=True),
        ]

    async def __call__(self, _: Request) -> dict[str, Any]:
        return {"pid": os.getpid(), "children": [child.pid for child in self.children]}
