"""Messages between the supervisor and the controller, over a socket pair, framed as the control link is."""

from __future__ import annotations

import msgspec

from trygon.engine.base import ReplicaExited, ReplicaStarted, RunningReplica, ShutdownBegun
from trygon.spec.launch import HelperLaunch, ReplicaLaunch

__all__ = [
    "BeginShutdown",
    "EndInstance",
    "FromSupervisor",
    "ListReplicas",
    "MarkReplica",
    "ReplicaList",
    "StartHelper",
    "StartReplica",
    "StopHelper",
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


class StartHelper(msgspec.Struct, frozen=True, tag=True):
    """Keep a process for this helper; nothing happens when there is one."""

    launch: HelperLaunch


class StopHelper(msgspec.Struct, frozen=True, tag=True):
    """End a helper at once; it is started again, unless nobody needs it any more."""

    key: str
    forget: bool


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


ToSupervisor = (
    StartReplica
    | StopReplica
    | MarkReplica
    | StartHelper
    | StopHelper
    | ListReplicas
    | BeginShutdown
    | EndInstance
)
FromSupervisor = ReplicaStarted | ReplicaExited | ReplicaList | ShutdownBegun
