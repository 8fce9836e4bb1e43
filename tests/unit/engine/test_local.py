"""A restarted controller's engine: what it lists is known to its caller before anything is told about it."""

from __future__ import annotations

import asyncio
import socket

from trygon.engine.base import EngineEvent, ReplicaExited, RunningReplica
from trygon.engine.ledger import Ledger
from trygon.engine.local import LocalEngine
from trygon.engine.messages import ReplicaList
from trygon.spec.application import CodeLocation, DeploymentOptions
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.wire import pack


def launch(replica_id: str) -> ReplicaLaunch:
    return ReplicaLaunch(
        replica_id=replica_id,
        app_name="app",
        deployment="Main",
        revision=1,
        is_ingress=True,
        route_prefix="/",
        definition=b"",
        options=DeploymentOptions(),
        code=CodeLocation(),
        address="/nowhere",
        controller_address="",
        log_path="",
    )


def test_the_end_of_a_listed_replica_is_told_after_the_list() -> None:
    told: list[EngineEvent] = []
    ended = ReplicaExited(replica_id="app#Main#a", pid=1, signal=9)

    async def connect() -> tuple[list[str], list[EngineEvent]]:
        ours, supervisors = socket.socketpair()
        with supervisors:
            engine = LocalEngine(ours, Ledger(cpus=1, custom={}), on_lost=lambda: None)
            # Both arrive in one read, as when the replica ends while the list is on its way.
            listed = ReplicaList((RunningReplica(launch=launch("app#Main#a"), pid=1),))
            supervisors.sendall(pack(listed) + pack(ended))
            running = await engine.connect(told.append)
            before = list(told)
            async with asyncio.timeout(5):
                while not told:
                    await asyncio.sleep(0)
            await engine.close()
        return [one.launch.replica_id for one in running], before

    running, before = asyncio.run(connect())

    assert ["app#Main#a"] == running
    assert [] == before
    assert [ended] == told
