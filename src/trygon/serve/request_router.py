"""Routers of requests, as `ray.serve.request_router` names them."""

from __future__ import annotations

from trygon.dataplane.replica_context import ReplicaID
from trygon.dataplane.routing.request_router import (
    ConsistentHashRouter,
    FIFOMixin,
    LeastLoadedRouter,
    LocalityMixin,
    LocalityRouter,
    MultiplexMixin,
    PendingRequest,
    PowerOfTwoChoicesRequestRouter,
    ReplicaResult,
    RequestMetadata,
    RequestRouter,
    RoundRobinRouter,
    RunningReplica,
)

__all__ = [
    "ConsistentHashRouter",
    "FIFOMixin",
    "LeastLoadedRouter",
    "LocalityMixin",
    "LocalityRouter",
    "MultiplexMixin",
    "PendingRequest",
    "PowerOfTwoChoicesRequestRouter",
    "ReplicaID",
    "ReplicaResult",
    "RequestMetadata",
    "RequestRouter",
    "RoundRobinRouter",
    "RunningReplica",
]
