"""Configurations, statuses and details, as `ray.serve.schema` names them.

All have the methods of pydantic models that Ray Serve's users call (`trygon.spec.model`), and none is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from trygon.serve.config_schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    RayActorOptionsSchema,
    ScaleDeploymentRequest,
    ServeApplicationSchema,
    ServeDeploySchema,
    gRPCOptionsSchema,
)
from trygon.spec.details import ApplicationDetails, DeploymentDetails, ProxyDetails, ReplicaDetails
from trygon.spec.details import InstanceDetails as ServeInstanceDetails
from trygon.spec.logging_options import EncodingType, LoggingConfig, TracingConfig
from trygon.spec.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    InstanceStatus,
    ProxyStatus,
    ReplicaState,
    Traffic,
)

__all__ = [
    "APIType",
    "ApplicationDetails",
    "ApplicationStatus",
    "ApplicationStatusOverview",
    "DeploymentDetails",
    "DeploymentSchema",
    "DeploymentStatus",
    "DeploymentStatusOverview",
    "DeploymentStatusTrigger",
    "EncodingType",
    "HTTPOptionsSchema",
    "LoggingConfig",
    "ProxyDetails",
    "ProxyStatus",
    "RayActorOptionsSchema",
    "ReplicaDetails",
    "ReplicaState",
    "ScaleDeploymentRequest",
    "ServeApplicationSchema",
    "ServeDeploySchema",
    "ServeInstanceDetails",
    "ServeStatus",
    "TracingConfig",
    "Traffic",
    "gRPCOptionsSchema",
]


class APIType(StrEnum):
    """How an application was deployed: by a program, or by a configuration."""

    UNKNOWN = "unknown"
    IMPERATIVE = "imperative"
    DECLARATIVE = "declarative"


@dataclass(frozen=True)
class ServeStatus:
    """What `serve.status()` returns; empty when nothing runs.

    Attributes:
        proxies: The ingress processes by name.
        applications: The applications by name.
        target_capacity: Percentage that all replica counts are scaled by, or None.
    """

    proxies: dict[str, ProxyStatus] = field(default_factory=dict)
    applications: dict[str, ApplicationStatusOverview] = field(default_factory=dict)
    target_capacity: float | None = None

    @classmethod
    def of_instance(cls, status: InstanceStatus) -> ServeStatus:
        """Return the public part of an instance's status."""
        return cls(dict(status.proxies), dict(status.applications), status.target_capacity)
