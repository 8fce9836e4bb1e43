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
from trygon.spec.status import ApplicationStatusOverview

__all__ = [
    "ApplicationChanged",
    "Call",
    "DeleteApplication",
    "DeployApplications",
    "DrainReplica",
    "FromPeer",
    "GetDetails",
    "GetGoal",
    "GetStatus",
    "Hello",
    "InstanceInfo",
    "Reconfigure",
    "ReconfigureDone",
    "ReplicaFailed",
    "ReplicaReady",
    "ReplicaUnhealthy",
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


class Hello(_Message, frozen=True):
    """First message of a peer; the controller answers with the current table."""

    #: "ingress", "replica", "admin" or "client".
    role: str
    #: Replica id, ingress slot, or "" for others.
    peer_id: str = ""
    pid: int = 0


class ReplicaReady(_Message, frozen=True):
    """The constructor, the first ``reconfigure`` and the first health check passed, and the socket listens."""

    replica_id: str
    pid: int


class ReplicaFailed(_Message, frozen=True):
    """The replica could not start; its process ends by itself after this message."""

    replica_id: str
    #: The user's traceback, or one paragraph.
    error: str


class ReplicaUnhealthy(_Message, frozen=True):
    """The user's health check failed too often in a row; the replica is replaced."""

    replica_id: str
    error: str


class ReconfigureDone(_Message, frozen=True):
    """`reconfigure` returned (empty error) or raised."""

    replica_id: str
    error: str = ""


class TableApplied(_Message, frozen=True):
    """An ingress routes by this version from now on."""

    version: int


class DeployApplications(_Message, frozen=True):
    """Deploy these applications; the value of the reply maps each name to its revision."""

    applications: tuple[ApplicationSpec, ...]
    #: Random; the same call repeated with the same token changes nothing and gets the same answer.
    token: str = ""
    #: Revisions that the caller saw, by application, 0 for none; when one has moved, the call fails
    #: with RevisionConflictError and nothing is done.
    expected_revisions: dict[str, int] = {}
    #: Compare with what runs and update in place what can be, as configuration files do; `serve.run` always rolls.
    declarative: bool = False
    #: Applications that are deleted in the same step, so that these may take their routes.
    removed: tuple[str, ...] = ()


class WaitApplications(_Message, frozen=True):
    """Reply when every named application is RUNNING at (or past) its revision and served by every ingress.

    The reply carries an error (kind "DeployError") as soon as one fails.
    Until then each change of a named application's status is sent as ApplicationChanged.
    """

    revisions: dict[str, int]


class DeleteApplication(_Message, frozen=True):
    """Delete an application; unknown names are accepted."""

    name: str
    #: The revision that the caller saw; when it has moved, the call fails with RevisionConflictError.
    expected_revision: int | None = None


class WaitDeleted(_Message, frozen=True):
    """Reply when no replica of the application is left."""

    name: str


class GetStatus(_Message, frozen=True):
    """The value of the reply is an InstanceStatus as builtins."""


class GetDetails(_Message, frozen=True):
    """The value of the reply is an InstanceDetails as builtins."""


class GetGoal(_Message, frozen=True):
    """The value of the reply is an InstanceGoal as builtins: what is wanted, not what is."""


class InstanceInfo(_Message, frozen=True):
    """The value of the reply is an InstanceRecord as builtins."""


class Shutdown(_Message, frozen=True):
    """Delete all applications, drain and end everything; the link closes when the controller goes."""

    #: Replicas still busy after this are killed; None lets each deployment's own timeout decide.
    grace_s: float | None = None


class Call(_Message, frozen=True):
    """A question; exactly one Reply follows."""

    seq: int
    request: (
        DeployApplications
        | WaitApplications
        | DeleteApplication
        | WaitDeleted
        | GetGoal
        | GetStatus
        | GetDetails
        | InstanceInfo
        | Shutdown
    )


# ---- from the controller to a peer


class Reply(_Message, frozen=True):
    """The answer to a Call: a value, or an error as (kind, text)."""

    seq: int
    value: Any = None
    #: Name of a class in trygon.errors, or "" when all is well.
    error_kind: str = ""
    error: str = ""


class TableChanged(_Message, frozen=True):
    """A newer routing table."""

    table: RoutingTable


class ApplicationChanged(_Message, frozen=True):
    """To a peer with an open WaitApplications: the application's status as it is now."""

    name: str
    status: ApplicationStatusOverview


class Reconfigure(_Message, frozen=True):
    """To a replica: call ``reconfigure`` with this value."""

    user_config: Any


class DrainReplica(_Message, frozen=True):
    """To a replica: take nothing new, finish what is ongoing within the timeout, then exit with 0."""

    timeout_s: float


FromPeer = Hello | ReplicaReady | ReplicaFailed | ReplicaUnhealthy | ReconfigureDone | TableApplied | Call
ToPeer = Reply | TableChanged | ApplicationChanged | Reconfigure | DrainReplica
