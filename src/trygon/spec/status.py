"""What is: statuses as Ray Serve names them, and what the controller reports."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = [
    "ApplicationStatus",
    "ApplicationStatusOverview",
    "DeploymentStatus",
    "DeploymentStatusOverview",
    "DeploymentStatusTrigger",
    "InstanceStatus",
    "ProxyStatus",
    "ReplicaState",
    "Traffic",
]


class ApplicationStatus(StrEnum):
    """Where an application is in its life."""

    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class DeploymentStatus(StrEnum):
    """Where a deployment is in its life."""

    UPDATING = "UPDATING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UPSCALING = "UPSCALING"
    DOWNSCALING = "DOWNSCALING"


class DeploymentStatusTrigger(StrEnum):
    """What led to a deployment's status."""

    UNSPECIFIED = "UNSPECIFIED"
    CONFIG_UPDATE_STARTED = "CONFIG_UPDATE_STARTED"
    CONFIG_UPDATE_COMPLETED = "CONFIG_UPDATE_COMPLETED"
    UPSCALE_COMPLETED = "UPSCALE_COMPLETED"
    DOWNSCALE_COMPLETED = "DOWNSCALE_COMPLETED"
    AUTOSCALING = "AUTOSCALING"
    REPLICA_STARTUP_FAILED = "REPLICA_STARTUP_FAILED"
    DEPLOYMENT_ACTOR_FAILED = "DEPLOYMENT_ACTOR_FAILED"
    HEALTH_CHECK_FAILED = "HEALTH_CHECK_FAILED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    DELETING = "DELETING"


class ReplicaState(StrEnum):
    """Where a replica is in its life, in Ray Serve's words."""

    STARTING = "STARTING"
    UPDATING = "UPDATING"
    RECOVERING = "RECOVERING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    PENDING_MIGRATION = "PENDING_MIGRATION"


class ProxyStatus(StrEnum):
    """Where an ingress process is in its life; Ray Serve says proxy."""

    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The last minute of an application or a deployment; numbers are at most about a second old."""

    requests_per_s: float = 0.0
    #: Of an application: answers with a status of 500 or above; of a deployment: exceptions.
    errors_per_s: float = 0.0
    #: Latencies, from buckets; None without a request.
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class DeploymentStatusOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment at one moment."""

    status: DeploymentStatus
    status_trigger: DeploymentStatusTrigger = DeploymentStatusTrigger.UNSPECIFIED
    replica_states: dict[ReplicaState, int] = {}
    message: str = ""
    #: Requests and handle calls that its replicas had; not part of Ray Serve's status.
    traffic: Traffic | None = None


class ApplicationStatusOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One application at one moment."""

    status: ApplicationStatus
    message: str = ""
    #: Wall-clock seconds.
    last_deployed_time_s: float = 0.0
    deployments: dict[str, DeploymentStatusOverview] = {}
    route_prefix: str | None = None
    revision: int = 0
    #: HTTP requests from outside; not part of Ray Serve's status.
    traffic: Traffic | None = None


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that runs in an instance; `serve.status()` shows the public part."""

    proxies: dict[str, ProxyStatus] = {}
    applications: dict[str, ApplicationStatusOverview] = {}
    target_capacity: float | None = None
