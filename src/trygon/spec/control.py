"""Messages of the control link: a Unix socket between the controller and everyone else.

On the wire: a 4-byte little-endian length, then one msgpack value.
A peer sends `Hello` first. `Call` is answered by `Reply` with the same `seq`;
everything else is one-way. Never on a request's path.
"""

from __future__ import annotations

from typing import Any

import msgspec

from trygon.spec.application import ApplicationSpec, DeploymentOptions
from trygon.spec.load import DeploymentLoad
from trygon.spec.routing import HttpTimeouts, RoutingTable
from trygon.spec.status import ApplicationStatusOverview

__all__ = [
    "ApplicationChanged",
    "Call",
    "DeleteApplication",
    "DeployApplications",
    "DrainReplica",
    "Explain",
    "FromPeer",
    "GetDetails",
    "GetGoal",
    "GetHistory",
    "GetStatus",
    "Hello",
    "InstanceInfo",
    "LoadReport",
    "Reconfigure",
    "ReconfigureDone",
    "ReplicaAlive",
    "ReplicaFailed",
    "ReplicaPreparing",
    "ReplicaReady",
    "ReplicaStats",
    "ReplicaUnhealthy",
    "Reply",
    "RouterTrouble",
    "ScaleDeployment",
    "Shutdown",
    "TableApplied",
    "TableChanged",
    "ToPeer",
    "UndoApplication",
    "WaitApplications",
    "WaitDeleted",
]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


# ---- from a peer to the controller


class Hello(_Message, frozen=True):
    """First message of a peer; the controller answers with the current table."""

    #: "ingress", "replica", "watchdog", "admin" or "client"; a watchdog is sent no tables.
    role: str
    #: Replica id (of a watchdog too), ingress slot, or "" for others.
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


class ReplicaPreparing(_Message, frozen=True):
    """The replica is not started yet, because what it needs is being built."""

    replica_id: str
    #: For people.
    doing: str


class ReplicaUnhealthy(_Message, frozen=True):
    """The user's health check failed too often in a row; the replica is replaced."""

    replica_id: str
    error: str


class ReplicaAlive(_Message, frozen=True):
    """A replica's watchdog thread runs; sent about once a second over a connection of its own."""

    replica_id: str
    #: For how long the replica's loop has not come round; 0 while it does.
    blocked_s: float = 0.0
    #: What it does instead, as "file:line"; empty while it is not blocked.
    where: str = ""


class LoadReport(_Message, frozen=True):
    """How much load a caller has; sent about once a second while it has some, and once when it has none any more."""

    loads: tuple[DeploymentLoad, ...]


class ReplicaStats(_Message, frozen=True):
    """What a replica's `record_autoscaling_stats` returned."""

    replica_id: str
    #: By name, as the user's method names them.
    stats: dict[str, float] = {}


class RouterTrouble(_Message, frozen=True):
    """A caller could not route requests by the user's class; sent about every 5 s while that is so, then once with 0."""

    app_name: str
    deployment: str
    #: Since the last such message.
    num_requests: int
    error: str = ""


class ReconfigureDone(_Message, frozen=True):
    """A `Reconfigure` was carried out (empty error), or the user's ``reconfigure`` raised."""

    replica_id: str
    error: str = ""
    #: The `revision` of the Reconfigure.
    revision: int = 0


class TableApplied(_Message, frozen=True):
    """An ingress routes by this version from now on."""

    version: int


class DeployApplications(_Message, frozen=True):
    """Deploy these applications; the value of the reply maps each name to its revision."""

    applications: tuple[ApplicationSpec, ...]
    #: Random; the same call repeated with the same token changes nothing and gets the same answer.
    token: str = ""
    #: Who asks, for the history: a command, or a function.
    origin: str = ""
    #: True for files and REST: what did not change keeps its replicas. False rolls every deployment.
    declarative: bool = False
    #: Revisions that the caller saw, by application, 0 for none; when one has moved, the call fails
    #: with RevisionConflictError and nothing is done.
    expected_revisions: dict[str, int] = {}
    #: Applications that are deleted in the same step, so that these may take their routes.
    removed: tuple[str, ...] = ()
    #: Percentage for all applications of configurations; unset where the call is about some of them only.
    target_capacity: float | msgspec.UnsetType | None = msgspec.UNSET
    #: For the whole instance, from now on; None leaves them as they are.
    http_timeouts: HttpTimeouts | None = None


class ScaleDeployment(_Message, frozen=True):
    """Give a deployment another number of replicas; the value of the reply maps the application to its revision.

    Only for applications with `external_scaler_enabled`.
    """

    application: str
    deployment: str
    num_replicas: int


class UndoApplication(_Message, frozen=True):
    """Deploy what an earlier revision was; the value of the reply maps the name to the new revision."""

    name: str
    #: Number of the earlier revision; None takes the newest other one that was complete.
    to: int | None = None
    #: As in DeployApplications.
    token: str = ""
    #: The revision that the caller saw; when it has moved, the call fails with RevisionConflictError.
    expected_revision: int | None = None


class GetHistory(_Message, frozen=True):
    """The value of the reply is a list of RevisionRecord as builtins, newest first."""

    name: str


class Explain(_Message, frozen=True):
    """The value of the reply is an Explanation as builtins."""

    #: An application, "application/deployment", or a replica's id or tag.
    name: str


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
        | GetHistory
        | UndoApplication
        | ScaleDeployment
        | Explain
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
    """To a replica: these are your options from now on, as far as they can change in place.

    The user's ``reconfigure`` is called when ``user_config`` is not what it took last.
    A `ReconfigureDone` with the same revision follows.
    """

    options: DeploymentOptions
    #: The revision that asks for them.
    revision: int
    world_size: int = 1
    #: The application's LoggingConfig as JSON values, or None.
    app_logging: dict[str, Any] | None = None


class DrainReplica(_Message, frozen=True):
    """To a replica: take nothing new, finish what is ongoing within the timeout, then exit with 0."""

    timeout_s: float


FromPeer = (
    Hello
    | ReplicaReady
    | ReplicaAlive
    | ReplicaFailed
    | ReplicaPreparing
    | ReplicaUnhealthy
    | LoadReport
    | ReplicaStats
    | RouterTrouble
    | ReconfigureDone
    | TableApplied
    | Call
)
ToPeer = Reply | TableChanged | ApplicationChanged | Reconfigure | DrainReplica
