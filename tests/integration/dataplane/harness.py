"""A data plane within one loop: replicas on Unix sockets, and callers with a router and a handle each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trygon.dataplane.handle import DeploymentHandle
from trygon.dataplane.replica import Replica
from trygon.dataplane.router import Router
from trygon.dataplane.runtime import Runtime
from trygon.dataplane.user_callable import UserCallable
from trygon.spec.routing import ApplicationRoute, DeploymentTargets, ReplicaTarget, RoutingTable

APP = "app"
DEPLOYMENT = "model"


@dataclass(frozen=True, eq=False)
class ServedReplica:
    """One replica that listens, and the user's object in it."""

    replica: Replica
    user: UserCallable
    target: ReplicaTarget

    @classmethod
    async def start(
        cls, make: Callable[[], Any], number: int, folder: Path, max_ongoing_requests: int
    ) -> ServedReplica:
        user = UserCallable(DEPLOYMENT, max_ongoing_requests)
        await user.construct(make, (), {})
        replica = Replica(
            asyncio.get_running_loop(), user, app_name=APP, max_ongoing_requests=max_ongoing_requests
        )
        path = str(folder / f"{number}.sock")
        await replica.listen(path)
        return cls(replica, user, ReplicaTarget(replica_id=f"{APP}#{DEPLOYMENT}#{number}", address=path))

    def leftovers(self) -> list[str]:
        """Say what a replica without requests must not hold."""
        connections = self.replica._connections
        counts = {
            "ongoing requests": self.replica.ongoing,
            "exchanges": sum(len(connection.exchanges) for connection in connections),
            "held results": sum(len(connection._held) for connection in connections),
        }
        return [f"{self.target.replica_id}: {count} {what}" for what, count in counts.items() if count]

    async def close(self) -> None:
        self.replica.close()
        await self.user.close()


class Caller:
    """A router with its table, and a handle that calls through it."""

    def __init__(self, name: str, table: RoutingTable) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.router = Router(loop)
        self.router.apply(table)
        self.handle = DeploymentHandle(DEPLOYMENT, APP, runtime=Runtime(loop, self.router))

    def leftovers(self) -> list[str]:
        """Say what a caller without requests must not hold."""
        found = []
        for pool in self.router._pools.values():
            counts = {
                "waiting": len(pool.waiting),
                "returned": len(pool.returned),
                "waiting for one replica": len(pool._targeted),
            }
            found += [f"{self.name}: {count} {what}" for what, count in counts.items() if count]
            for link in pool.links:
                counts = {
                    "ongoing": link.ongoing,
                    "open streams": link.num_open,
                    "slots held": len(link._holders),
                }
                found += [
                    f"{self.name} to {link.replica_id}: {count} {what}"
                    for what, count in counts.items()
                    if count
                ]
        return found


def table(version: int, replicas: Sequence[ServedReplica], max_ongoing_requests: int) -> RoutingTable:
    """Return the table that lists `replicas`."""
    return RoutingTable(
        version=version,
        applications=(ApplicationRoute(app_name=APP, route_prefix="/", ingress=DEPLOYMENT, revision=1),),
        deployments=(
            DeploymentTargets(
                app_name=APP,
                name=DEPLOYMENT,
                revision=1,
                max_ongoing_requests=max_ongoing_requests,
                replicas=tuple(served.target for served in replicas),
            ),
        ),
    )


def num_memory_files() -> int:
    """Count this process's open memory files: the segments of large payloads."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("/memfd:")
        except OSError:  # the listing's own descriptor is gone by now
            continue
    return count
