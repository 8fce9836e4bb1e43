"""The replica that running code belongs to, as `serve.get_replica_context()` shows it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

__all__ = ["ReplicaContext", "ReplicaID", "ReplicaRank", "current_replica_context", "enter_replica"]


@dataclass(frozen=True)
class ReplicaRank:
    """The place of a replica among those of its deployment.

    Attributes:
        rank: 0 <= rank < world_size, unique among the deployment's replicas.
        node_rank: Rank of its host among the hosts with replicas.
        local_rank: Rank among the replicas on its host.
    """

    rank: int
    node_rank: int
    local_rank: int


@dataclass(frozen=True)
class ReplicaID:
    """A replica's name in the instance."""

    unique_id: str
    deployment: str
    app_name: str

    def __str__(self) -> str:
        return f"Replica(id={self.unique_id!r}, deployment={self.deployment!r}, app={self.app_name!r})"


@dataclass
class ReplicaContext:
    """What code in a replica may know of its replica.

    Attributes:
        replica_id: Name parts of the replica.
        servable_object: The user's instance, or the function.
        rank: The replica's place among those of its deployment.
        world_size: Replicas the deployment is meant to have.
        code_version: Revision of the application.
        max_ongoing_requests: Requests the replica takes at a time.
    """

    replica_id: ReplicaID
    servable_object: Any
    rank: ReplicaRank
    world_size: int
    code_version: str = ""
    gang_context: Any = None
    max_ongoing_requests: int = 0

    @property
    def app_name(self) -> str:
        """The application."""
        return self.replica_id.app_name

    @property
    def deployment(self) -> str:
        """The deployment."""
        return self.replica_id.deployment

    @property
    def replica_tag(self) -> str:
        """The short unique id."""
        return self.replica_id.unique_id


_current: ContextVar[ReplicaContext | None] = ContextVar("trygon_replica", default=None)


def enter_replica(context: ReplicaContext) -> None:
    """Make everything started from here on belong to `context`."""
    _current.set(context)


def current_replica_context() -> ReplicaContext | None:
    """Return the context of the running code's replica, or None outside of one."""
    return _current.get()
