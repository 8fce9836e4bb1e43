"""The local engine, as the controller sees it: a link to the supervisor, which forks and reaps.

Placement is decided here: GPUs and custom resources are booked before a launch is sent.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

import msgspec

from trygon.engine.base import (
    Capabilities,
    EngineEvent,
    ReplicaExited,
    ReplicaStarted,
    ReplicaUnplaceable,
    Resources,
    RunningReplica,
    Vitals,
)
from trygon.engine.ledger import Ledger, Shortage
from trygon.engine.messages import (
    BeginShutdown,
    EndInstance,
    FromSupervisor,
    ListReplicas,
    MarkReplica,
    ReplicaList,
    StartHelper,
    StartReplica,
    StopHelper,
    StopReplica,
    ToSupervisor,
)
from trygon.engine.vitals import read_vitals
from trygon.spec.launch import HelperLaunch, ReplicaLaunch
from trygon.spec.wire import MessageReader, pack

__all__ = ["LocalEngine"]

logger = logging.getLogger("trygon.engine")


class LocalEngine(asyncio.Protocol):
    """Replicas as processes of this machine.

    Args:
        link: Connected socket to the supervisor.
        ledger: The exclusive resources of the machine.
        on_lost: Called when the supervisor is gone; the instance has ended.
    """

    capabilities = Capabilities(kill=True, environment=True, gpus=True)

    def __init__(self, link: socket.socket, ledger: Ledger, *, on_lost: Callable[[], None]) -> None:
        self._link = link
        self._ledger = ledger
        self._on_lost = on_lost
        self._reader: MessageReader[FromSupervisor] = MessageReader(FromSupervisor)
        self._transport: asyncio.Transport | None = None
        self._on_event: Callable[[EngineEvent], None] | None = None
        self._listed: asyncio.Future[list[RunningReplica]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Of replicas that have not been reaped, as far as it is known here.
        self._pids: dict[str, int] = {}
        #: True once `close` was called: the end of the link is then no news.
        self._closed = False
        #: Events that arrive before the caller of `connect` knows the replicas that they are about.
        self._held: list[EngineEvent] | None = None

    async def connect(self, on_event: Callable[[EngineEvent], None]) -> list[RunningReplica]:
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._listed = self._loop.create_future()
        self._held = []
        self._link.setblocking(False)
        await self._loop.create_unix_connection(lambda: self, sock=self._link)
        self._send(ListReplicas())
        running = await self._listed
        for replica in running:
            launch = replica.launch
            self._pids[launch.replica_id] = replica.pid
            self._ledger.adopt(launch.replica_id, launch.options.resources, launch.gpu_ids)
        # In a later turn, when the caller has taken the list: the end of a replica that was not
        # adopted yet would be nobody's, and the dead replica counted as running for ever.
        self._loop.call_soon(self._release_held)
        return running

    def start(self, launch: ReplicaLaunch) -> None:
        try:
            gpu_ids = self._ledger.acquire(launch.replica_id, launch.options.resources)
        except Shortage as shortage:
            assert self._loop is not None
            self._loop.call_soon(self._emit, ReplicaUnplaceable(launch.replica_id, str(shortage)))
            return
        self._send(StartReplica(msgspec.structs.replace(launch, gpu_ids=gpu_ids)))

    def stop(self, replica_id: str, *, force: bool) -> None:
        self._send(StopReplica(replica_id, force))

    def mark(self, replica_id: str, mark: str) -> None:
        self._send(MarkReplica(replica_id, mark))

    def vitals(self, replica_id: str) -> Vitals | None:
        pid = self._pids.get(replica_id)
        return read_vitals(pid) if pid is not None else None

    def start_helper(self, launch: HelperLaunch) -> None:
        self._send(StartHelper(launch))

    def stop_helper(self, key: str, *, forget: bool) -> None:
        self._send(StopHelper(key, forget))

    def resources(self) -> Resources:
        return self._ledger.resources()

    def begin_shutdown(self, grace_s: float | None) -> None:
        self._send(BeginShutdown(grace_s))

    def end(self) -> None:
        self._send(EndInstance())

    async def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.close()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no sub-class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if isinstance(message, ReplicaList):
                if self._listed is not None and not self._listed.done():
                    self._listed.set_result(list(message.replicas))
                continue
            self._emit(message)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            self._on_lost()

    def _send(self, message: ToSupervisor) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(message))

    def _release_held(self) -> None:
        held, self._held = self._held or [], None
        for event in held:
            self._emit(event)

    def _emit(self, event: EngineEvent) -> None:
        if self._held is not None:
            self._held.append(event)
            return
        if isinstance(event, ReplicaStarted):
            self._pids[event.replica_id] = event.pid
        elif isinstance(event, ReplicaExited):
            self._pids.pop(event.replica_id, None)
            self._ledger.release(event.replica_id)
        if self._on_event is not None:
            self._on_event(event)
