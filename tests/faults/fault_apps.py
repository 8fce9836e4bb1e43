"""Deployments that can be frozen, killed and blocked."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from itertools import repeat, starmap, takewhile
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from tests.integration.serve.doors import Doors
from trygon import serve
from trygon.serve.handle import DeploymentHandle


@serve.deployment(max_ongoing_requests=20)
class Victim(Doors):
    """Answers with its pid; waits, blocks or dies when asked."""

    def __init__(self, weights: bytes = b"") -> None:
        super().__init__()
        self.weights = weights

    async def __call__(self, request: Any = None) -> Any:
        query = request.query_params if isinstance(request, Request) else {}
        if door := query.get("door"):
            await self.wait(door)
        if "die" in query:
            os._exit(9)
        if "stream" in query:
            return StreamingResponse(self._stream())
        return os.getpid()

    async def _stream(self) -> Any:
        yield b"begun"
        await self.wait("stream")
        yield b"never"

    async def pid(self) -> int:
        return os.getpid()

    def pid_sync(self) -> int:
        return os.getpid()

    async def items(self) -> Any:
        yield os.getpid()
        await self.wait("items")

    async def die(self, *_: Any) -> None:
        os._exit(9)

    async def block(self, path: str) -> int:
        """Block the loop until a file appears: no call can open this door."""
        _until_exists(path)
        return os.getpid()

    def block_sync(self, path: str) -> int:
        """Block a thread of the pool until a file appears."""
        _until_exists(path)
        return os.getpid()


@serve.deployment(max_ongoing_requests=20)
class Checked:
    """Has a health check that hangs when asked; the check has a thread of its own."""

    def __init__(self) -> None:
        self.hangs_on = ""

    async def pid(self) -> int:
        return os.getpid()

    async def block(self, path: str) -> None:
        _until_exists(path)

    async def hang_check(self, path: str) -> None:
        self.hangs_on = path

    async def hold_interpreter(self, seconds: float) -> float:
        """Hold the interpreter lock in one native call that uses the processor; return for how long it was."""
        began = time.monotonic()
        readings = starmap(time.monotonic, repeat(()))
        # No step of this is bytecode, after which the interpreter would let another thread run.
        deque(takewhile((began + seconds).__gt__, readings), maxlen=0)
        return time.monotonic() - began

    def check_health(self) -> None:
        if self.hangs_on:
            _until_exists(self.hangs_on)


@serve.deployment
class Hoarder:
    """Takes all the memory that it is asked for."""

    async def pid(self) -> int:
        return os.getpid()

    async def hoard(self, num_bytes: int) -> int:
        step = 10_000_000
        # Written, and not only reserved.
        return sum(len(part) for part in [b"x" * step for _ in range(num_bytes // step)])


def _until_exists(path: str) -> None:
    pause = threading.Event()
    while not os.path.exists(path):
        pause.wait(0.02)


@serve.deployment(max_ongoing_requests=50)
class Front:
    """Stands before a victim."""

    def __init__(self, victim: DeploymentHandle) -> None:
        self.victim = victim

    async def __call__(self, request: Request) -> Any:
        return await self.victim.remote()

    async def caught(self) -> str:
        try:
            await self.victim.die.remote()
        except Exception as error:
            return type(error).__name__
        return "nothing"

    async def many(self, count: int) -> list[Any]:
        calls = [self.victim.pid.remote() for _ in range(count)]
        return [type(one).__name__ for one in await asyncio.gather(*calls, return_exceptions=True)]


def wait_until_stuck(threads: Executor, ask: Callable[[], Any]) -> Future[Any]:
    """Ask until one answer does not come: from then on the asked replica is suspect to this caller."""
    for _ in range(100):
        asked = threads.submit(ask)
        try:
            asked.result(1.0)
        except TimeoutError:
            return asked
    raise AssertionError("every request was answered: none met the replica that does not answer")


@serve.deployment(max_ongoing_requests=20)
class Bomb(Doors):
    """Ends its process when asked, and writes down beforehand that it was asked.

    Args:
        folder: One file for each name, one line with a pid for each time it was asked.
        gate: A file that its start waits for.
    """

    def __init__(self, folder: str, gate: str = "") -> None:
        super().__init__()
        self.folder = folder
        if gate:
            _until_exists(gate)

    async def __call__(self, request: Request) -> Any:
        query = request.query_params
        if name := query.get("die"):
            self.die(name, query.get("how", "exit"))
        if name := query.get("once"):
            self.die_once(name)
        if name := query.get("door"):
            self._note(name)
            await self.wait(name)
        if name := query.get("stream"):
            return StreamingResponse(self.stream_and_die(name))
        if "body" in query and b"die" in await request.body():
            self.die("body", "exit")
        return os.getpid()

    async def pid(self) -> int:
        return os.getpid()

    def die(self, name: str, how: str = "exit", *_: Any) -> None:
        """End the process each time."""
        self._note(name)
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, how))

    def die_once(self, name: str, *_: Any) -> int:
        """End the process as if somebody had killed it, the first time only."""
        if self._note(name) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    async def items_once(self, name: str) -> Any:
        """End the process before the first item, the first time only."""
        yield self.die_once(name)
        yield "last"

    async def items_then_die(self, name: str) -> Any:
        yield "first"
        self.die_once(name)

    async def hold(self, name: str) -> int:
        """Wait behind a door."""
        self._note(name)
        await self.wait(name)
        return os.getpid()

    async def stream_and_die(self, name: str) -> Any:
        yield b"begun"
        self.die(name)

    def _note(self, name: str) -> int:
        """Write one line, and return how many there are."""
        path = os.path.join(self.folder, name)
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")
        with open(path) as file:
            return len(file.readlines())


@serve.deployment
class Relay:
    """Passes a poison on to a bomb."""

    def __init__(self, bomb: DeploymentHandle) -> None:
        self.bomb = bomb

    async def __call__(self, request: Request) -> Any:
        return await self.bomb.die.remote(request.query_params["die"])
