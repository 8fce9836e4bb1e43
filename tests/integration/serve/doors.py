"""Doors that a test opens: "I have entered" and "go on" instead of sleeping. Each replica has its own."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter


class Doors:
    """Base of deployments whose methods wait until the test says `open`."""

    def __init__(self) -> None:
        self.inside: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.done: list[str] = []
        self._async: dict[str, asyncio.Event] = {}
        self._sync: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    async def wait(self, door: str) -> str:
        """Stay until `open(door)`; what ended the wait is written down in `done`."""
        gate = self._async.setdefault(door, asyncio.Event())
        self._enter(door)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.done.append(f"{door}: cancelled")
            raise
        finally:
            self._leave(door)
        self.done.append(f"{door}: opened")
        return door

    def wait_in_thread(self, door: str) -> str:
        """Stay until `open(door)`, blocking a thread of the request pool."""
        gate = self._sync.setdefault(door, threading.Event())
        self._enter(door)
        try:
            assert gate.wait(30), f"nobody opened {door}"
        finally:
            self._leave(door)
        self.done.append(f"{door}: opened")
        return door

    async def open_later(self, door: str, first: str) -> None:
        """Open a door when the wait behind another one ends, be it by cancelling."""
        try:
            await self.wait(first)
        finally:
            await self.open(door)

    async def open(self, door: str) -> None:
        """Let everybody behind the door go on, now and later."""
        self._async.setdefault(door, asyncio.Event()).set()
        self._sync.setdefault(door, threading.Event()).set()

    async def count(self, door: str) -> int:
        """Return how many wait behind the door."""
        return self.inside[door]

    async def report(self) -> dict[str, object]:
        """Return the most that ever waited behind each door, and how waits ended."""
        return {"peak": dict(self.peak), "done": list(self.done)}

    def _enter(self, door: str) -> None:
        with self._lock:
            self.inside[door] += 1
            self.peak[door] = max(self.peak[door], self.inside[door])

    def _leave(self, door: str) -> None:
        with self._lock:
            self.inside[door] -= 1
