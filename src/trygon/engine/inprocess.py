"""The in-process engine: replicas as threads of this process, for tests and notebooks.

What it cannot have, its capabilities say: a thread cannot be killed, has no environment and no GPU of its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from collections.abc import Callable

from trygon.engine.base import (
    Capabilities,
    EngineEvent,
    ReplicaExited,
    ReplicaStarted,
    Resources,
    RunningReplica,
    ShutdownBegun,
    Vitals,
)
from trygon.spec.launch import HelperLaunch, ReplicaLaunch

__all__ = ["InProcessEngine"]


class InProcessEngine:
    """Replicas as threads, each with what its entry point makes of it.

    Args:
        main: Runs one replica until the event is set or it is done; an exception is a failed replica.
        helper: Runs one user-code helper until the event is set.
    """

    capabilities = Capabilities(kill=False, environment=False, gpus=False)

    def __init__(
        self,
        main: Callable[[ReplicaLaunch, threading.Event], None],
        helper: Callable[[HelperLaunch, threading.Event], None] | None = None,
    ) -> None:
        self._main = main
        self._helper = helper
        self._helpers: dict[str, threading.Event] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_event: Callable[[EngineEvent], None] | None = None
        #: Every replica whose thread has not ended: its launch, the event that stops it, and its mark.
        self._running: dict[str, tuple[ReplicaLaunch, threading.Event]] = {}
        self._marks: dict[str, str] = {}
        self._threads: set[threading.Thread] = set()

    async def connect(self, on_event: Callable[[EngineEvent], None]) -> list[RunningReplica]:
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        return [
            RunningReplica(launch=launch, pid=os.getpid(), mark=self._marks.get(replica_id, ""))
            for replica_id, (launch, _) in self._running.items()
        ]

    def start(self, launch: ReplicaLaunch) -> None:
        stop = threading.Event()
        self._running[launch.replica_id] = (launch, stop)
        thread = threading.Thread(
            target=self._run, args=(launch, stop), name=f"trygon-{launch.replica_id}", daemon=True
        )
        self._threads.add(thread)
        thread.start()
        self._soon(ReplicaStarted(launch.replica_id, os.getpid()))

    def stop(self, replica_id: str, *, force: bool) -> None:
        entry = self._running.get(replica_id)
        if entry is not None:
            entry[1].set()

    def mark(self, replica_id: str, mark: str) -> None:
        if replica_id in self._running:
            self._marks[replica_id] = mark

    def vitals(self, replica_id: str) -> Vitals | None:
        # The process is the controller's own.
        return None

    def start_helper(self, launch: HelperLaunch) -> None:
        if self._helper is None or launch.key in self._helpers:
            return
        stop = self._helpers[launch.key] = threading.Event()
        threading.Thread(
            target=self._helper, args=(launch, stop), name=f"trygon-helper-{launch.key}", daemon=True
        ).start()

    def stop_helper(self, key: str, *, forget: bool) -> None:
        # A thread that hangs cannot be ended; it answers later questions, or none.
        stop = self._helpers.pop(key, None) if forget else None
        if stop is not None:
            stop.set()

    def resources(self) -> Resources:
        return Resources(cpus=float(os.cpu_count() or 1))

    def begin_shutdown(self, grace_s: float | None) -> None:
        self._soon(ShutdownBegun(grace_s))

    def end(self) -> None:
        for _, stop in self._running.values():
            stop.set()
        for key in list(self._helpers):
            self.stop_helper(key, forget=True)

    async def close(self) -> None:
        self.end()
        for thread in list(self._threads):
            await asyncio.to_thread(thread.join, 10.0)
        self._on_event = None

    def _run(self, launch: ReplicaLaunch, stop: threading.Event) -> None:
        error = ""
        try:
            self._main(launch, stop)
        except BaseException:  # noqa: BLE001 - the boundary of a replica: its end is told as a process's would be
            error = traceback.format_exc()
        event = ReplicaExited(
            replica_id=launch.replica_id,
            pid=os.getpid(),
            exit_code=1 if error else 0,
            reason=error or "exit code 0",
        )
        loop = self._loop
        assert loop is not None
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._ended, event, threading.current_thread())

    def _ended(self, event: ReplicaExited, thread: threading.Thread) -> None:
        self._threads.discard(thread)
        self._running.pop(event.replica_id, None)
        self._marks.pop(event.replica_id, None)
        if self._on_event is not None:
            self._on_event(event)

    def _soon(self, event: EngineEvent) -> None:
        assert self._loop is not None
        if self._on_event is not None:
            self._loop.call_soon(self._on_event, event)
