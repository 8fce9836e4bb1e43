"""Messages of the control link: a Unix socket between the controller and everyone else.

On the wire: a 4-byte little-endian length, then one msgpack value.
A peer sends `Hello` first. `Call` is answered by `Reply` with the same `seq`;
everything else is one-way. Never on a request's path.
"""

from __future__ import annotations

from typing import Any

import msgspec

from trygon.spec.application import ApplicationSpec
from trygon.spec.routing import RoutingTable

__all__ = [
    "Call",
    "DeleteApplication",
    "DeployApplications",
    "DrainReplica",
    "FromPeer",
    "GetStatus",
    "Hello",
    "InstanceInfo",
    "Reconfigure",
    "ReconfigureDone",
    "ReplicaFailed",
    "ReplicaReady",
    "Reply",
    "Shutdown",
    "TableApplied",
    "TableChanged",
    "ToPeer",
    "WaitApplications",
    "WaitDeleted",
]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


# ---- from a peer to the controller


class Hello(_Message):
    """First message of a peer; the controller answers with the current table."""

    #: "ingress", "replica" or "client".
    role: str
    #: Replica id, ingress slot, or "" for a client.
    peer_id: str = ""
    pid: int = 0


class ReplicaReady(_Message):
    """The constructor, the first ``reconfigure`` and the first health check passed, and the socket listens."""

    replica_id: str
    pid: int


class ReplicaFailed(_Message):
    """The replica could not start; its process ends by itself after this message."""

    replica_id: str
    #: The user's traceback, or one paragraph.
    error: str


class ReconfigureDone(_Message):
    """`reconfigure` returned (empty error) or raised."""

    replica_id: str
    error: str = ""


class TableApplied(_Message):
    """An ingress routes by this version from now on."""

    version: int


class DeployApplications(_Message):
    """Deploy these applications; the value of the reply maps each name to its revision."""

    applications: tuple[ApplicationSpec, ...]


class WaitApplications(_Message):
    """Reply when every named application is RUNNING at (or past) its revision and served by every ingress.

    The reply carries an error (kind "DeployError") as soon as one fails.
    """

    revisions: dict[str, int]


class DeleteApplication(_Message):
    """Delete an application; unknown names are accepted."""

    name: str


class WaitDeleted(_Message):
    """Reply when no replica of the application is left."""

    name: str


class GetStatus(_Message):
    """The value of the reply is an InstanceStatus as builtins."""


class InstanceInfo(_Message):
    """The value of the reply is a dict: http_host, http_port, pid of the supervisor, log_dir, state_dir."""


class Shutdown(_Message):
    """Drain and end everything; the link closes when the controller goes."""


class Call(_Message):
    """A question; exactly one Reply follows."""

    seq: int
    request: (
        DeployApplications
        | WaitApplications
        | DeleteApplication
        | WaitDeleted
        | GetStatus
        | InstanceInfo
        | Shutdown
    )


# ---- from the controller to a peer


class Reply(_Message):
    """The answer to a Call: a value, or an error as (kind, text)."""

    seq: int
    value: Any = None
    #: Name of a class in trygon.errors, or "" when all is well.
    error_kind: str = ""
    error: str = ""


class TableChanged(_Message):
    """A newer routing table."""

    table: RoutingTable


class Reconfigure(_Message):
    """To a replica: call ``reconfigure`` with this value."""

    user_config: Any


class DrainReplica(_Message):
    """To a replica: take nothing new, finish what is ongoing within the timeout, then exit with 0."""

    timeout_s: float


FromPeer = Hello | ReplicaReady | ReplicaFailed | ReconfigureDone | TableApplied | Call
ToPeer = Reply | TableChanged | Reconfigure | DrainReplica
