"""Statuses, logging and tracing options, as `ray.serve.schema` names them."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    "ApplicationStatus",
    "ApplicationStatusOverview",
    "DeploymentStatus",
    "DeploymentStatusOverview",
    "DeploymentStatusTrigger",
    "EncodingType",
    "LoggingConfig",
    "ProxyStatus",
    "ReplicaState",
    "ServeStatus",
    "TracingConfig",
    "Traffic",
]


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
