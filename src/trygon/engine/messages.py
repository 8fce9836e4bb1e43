"""Messages between the supervisor and the controller, over a socket pair, framed as the control link is."""

from __future__ import annotations

import msgspec

from trygon.engine.base import ReplicaExited, ReplicaStarted, RunningReplica, ShutdownBegun
from trygon.spec.launch import ReplicaLaunch

__all__ = [
    "BeginShutdown",
    "EndInstance",
    "FromSupervisor",
    "ListReplicas",
    "MarkReplica",
    "ReplicaList",
    "StartReplica",
    "StopReplica",
    "ToSupervisor",
]


class StartReplica(msgspec.Struct, frozen=True, tag=True):
    """Start a process for this replica."""

    launch: ReplicaLaunch


class StopReplica(msgspec.Struct, frozen=True, tag=True):
    """SIGTERM the replica, or SIGKILL its whole group."""

    replica_id: str
    force: bool


class MarkReplica(msgspec.Struct, frozen=True, tag=True):
    """Keep this word beside the replica."""

    replica_id: str
    mark: str


class ListReplicas(msgspec.Struct, frozen=True, tag=True):
    """Answer with a ReplicaList."""


class BeginShutdown(msgspec.Struct, frozen=True, tag=True):
    """Close the front door; ShutdownBegun comes back."""

    grace_s: float | None = None


class EndInstance(msgspec.Struct, frozen=True, tag=True):
    """End what is left."""


class ReplicaList(msgspec.Struct, frozen=True, tag=True):
    """Every replica whose process has not been reaped."""

    replicas: tuple[RunningReplica, ...]


ToSupervisor = StartReplica | StopReplica | MarkReplica | ListReplicas | BeginShutdown | EndInstance
FromSupervisor = ReplicaStarted | ReplicaExited | ReplicaList | ShutdownBegun
