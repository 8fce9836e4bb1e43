"""Who takes requests: the complete, versioned table that callers hold."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from trygon.spec.queueing import QueuePolicy
from trygon.spec.routers import RouterRule

__all__ = [
    "ApplicationRoute",
    "DeathCause",
    "DeploymentTargets",
    "HttpTimeouts",
    "ReplicaDeath",
    "ReplicaTarget",
    "RoutingTable",
]


class DeathCause(StrEnum):
    """What ended a replica's process, as far as its callers have to know."""

    #: Its own code: it left unasked, or the kernel stopped it for a fault.
    OWN = "own"
    #: It, or something else, used up the memory.
    OUT_OF_MEMORY = "out_of_memory"
    #: Somebody else: a signal, an order to leave.
    OUTSIDE = "outside"


class ReplicaTarget(msgspec.Struct, frozen=True):
    """One replica that takes requests."""

    replica_id: str
    #: Path of the Unix socket it listens on.
    address: str


class ReplicaDeath(msgspec.Struct, frozen=True):
    """A replica that ended while it had, or may have had, requests."""

    replica_id: str
    cause: DeathCause


class DeploymentTargets(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas of one revision of a deployment, and what its callers must respect."""

    app_name: str
    name: str
    revision: int
    max_ongoing_requests: int
    #: Whether the replicas take fewer, as they learn how many they should work on.
    tunes_ongoing_requests: bool = False
    max_queued_requests: int = -1
    backpressure_status_code: int = 503
    backpressure_retry_after_s: float | None = None
    queue: QueuePolicy = QueuePolicy()
    router: RouterRule = RouterRule()
    #: Ready replicas only, ordered by id.
    replicas: tuple[ReplicaTarget, ...] = ()
    #: How often callers report their load, in seconds; 0 where the number of replicas does not follow it.
    load_period_s: float = 0.0
    #: Why nothing runs (a failed or deleting deployment); empty while requests may wait for a replica.
    unavailable: str = ""


class ApplicationRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Which deployment and revision serves an application from outside."""

    app_name: str
    #: None is not served over HTTP.
    route_prefix: str | None
    ingress: str
    #: The revision that new requests from outside go to.
    revision: int
    #: Whether the ingress writes its requests to the access log, as its logging_config says.
    access_log: bool = True


class HttpTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The HTTP options that change while an instance runs."""

    #: 0 is no limit.
    request_timeout_s: float
    keep_alive_timeout_s: float


class RoutingTable(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a caller needs to send a request without asking anyone.

    Versions grow; a table with a smaller version than the held one is ignored.
    A caller inside a replica of revision r calls its siblings of revision r
    while the table lists them, so that a new parent never calls an old child.
    """

    version: int = 0
    applications: tuple[ApplicationRoute, ...] = ()
    deployments: tuple[DeploymentTargets, ...] = ()
    #: The last deaths, oldest first: a caller sees that its requests were lost, and not why.
    deaths: tuple[ReplicaDeath, ...] = ()
    #: None while they are as the instance was started with.
    http_timeouts: HttpTimeouts | None = None
