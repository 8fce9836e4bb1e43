"""Applications whose requests are routed by other rules than power of two choices."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from trygon import serve
from trygon.serve.request_router import (
    MultiplexMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)


def by_tag(replicas: list[RunningReplica]) -> list[RunningReplica]:
    return sorted(replicas, key=lambda replica: replica.replica_id.unique_id)


class ByNumber(RequestRouter):
    """Sends request n to the n-th replica; says what it did in a file."""

    def initialize_state(self, path: str = "") -> None:
        self.path = path

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        assert pending_request is not None
        given = pending_request.args[0]
        number = given if isinstance(given, int) else int(given.query_params["n"])
        ordered = by_tag(candidate_replicas)
        return [[ordered[number % len(ordered)]]]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        if self.path:
            with Path(self.path).open("a") as file:
                file.write(f"{pending_request.args[0]} {replica_id.unique_id}\n")


class Faulty(RequestRouter):
    """Does what a file says."""

    def initialize_state(self, path: str) -> None:
        self.path = Path(path)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        match self.path.read_text():
            case "raise":
                raise ValueError("no idea")
            case "hang":
                await asyncio.Event().wait()
            case "block":
                time.sleep(1.5)
            case "nonsense":
                return ["replica"]  # type: ignore[list-item]
            case "empty":
                return []
        return [by_tag(candidate_replicas)[:1]]


class ByStats(MultiplexMixin, RequestRouter):
    """Takes the replica that says it is the best."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        assert pending_request is not None
        model_id = pending_request.metadata.multiplexed_model_id
        if model_id:
            return self.rank_replicas_via_multiplex(candidate_replicas, model_id)
        return [[max(candidate_replicas, key=lambda one: one.routing_stats.get("worth", 0))]]


@serve.deployment(num_replicas=3, max_ongoing_requests=10)
class Place:
    """Says who it is."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()

    def record_routing_stats(self) -> dict[str, float]:
        return {"worth": os.getpid()}

    async def __call__(self, request: object = None) -> str:
        await self.is_open.wait()
        return serve.get_replica_context().replica_id.unique_id

    async def slow(self, number: int = 0) -> str:
        await asyncio.sleep(0.1)
        return serve.get_replica_context().replica_id.unique_id

    async def hold(self, *, is_held: bool) -> int:
        (self.is_open.clear if is_held else self.is_open.set)()
        return os.getpid()

    @serve.multiplexed(max_num_models_per_replica=3)
    async def get_model(self, model_id: str) -> str:
        return model_id

    async def with_model(self) -> str:
        await self.get_model(serve.get_multiplexed_model_id())
        return serve.get_replica_context().replica_id.unique_id
