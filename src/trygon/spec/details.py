"""Everything that is known of an instance, in the shape of Ray Serve's REST API.

What exists only on a cluster (node and actor ids, worker ids) is left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from trygon.spec.status import (
    ApplicationStatus,
    DeploymentStatus,
    DeploymentStatusTrigger,
    ProxyStatus,
    ReplicaState,
)

__all__ = [
    "ApplicationDetails",
    "ControllerInfo",
    "DeploymentDetails",
    "InstanceDetails",
    "ProxyDetails",
    "ReplicaDetails",
]


class ControllerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The controller's process."""

    pid: int = 0
    log_file_path: str = ""


class ProxyDetails(msgspec.Struct, frozen=True, kw_only=True):
    """One ingress process; Ray Serve says proxy."""

    status: ProxyStatus
    log_file_path: str = ""


class ReplicaDetails(msgspec.Struct, frozen=True, kw_only=True):
    """One replica."""

    replica_id: str
    state: ReplicaState
    #: None until its process runs.
    pid: int | None = None
    #: Wall-clock seconds.
    start_time_s: float = 0.0
    log_file_path: str = ""


class DeploymentDetails(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment of the newest revision."""

    name: str
    status: DeploymentStatus
    status_trigger: DeploymentStatusTrigger
    message: str = ""
    #: The options as they hold, named as in a configuration file; values of env_vars are left out.
    deployment_config: dict[str, Any] = {}
    target_num_replicas: int = 0
    #: With autoscaling: bounds, load, the last decision and the last changes; else None.
    autoscaling_detail: dict[str, Any] | None = None
    required_resources: dict[str, float] = {}
    replicas: list[ReplicaDetails] = []


class ApplicationDetails(msgspec.Struct, frozen=True, kw_only=True):
    """One application."""

    name: str
    route_prefix: str | None
    docs_path: str | None
    status: ApplicationStatus
    message: str
    last_deployed_time_s: float
    #: As it was given in a configuration; None for applications that a program deployed.
    deployed_app_config: dict[str, Any] | None = None
    #: "declarative" when a configuration deployed it, else "imperative".
    source: str = "imperative"
    deployments: dict[str, DeploymentDetails] = {}
    external_scaler_enabled: bool = False
    deployment_topology: dict[str, Any] | None = None
    #: Number of the newest revision; what the ETag of the application says.
    revision: int = 0
    #: The revision that requests go to; None before the first is complete.
    serving_revision: int | None = None


class InstanceDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that runs in an instance."""

    controller_info: ControllerInfo = ControllerInfo()
    proxy_location: str = "EveryNode"
    http_options: dict[str, Any] = {}
    grpc_options: dict[str, Any] | None = None
    #: By ingress slot.
    proxies: dict[str, ProxyDetails] = {}
    applications: dict[str, ApplicationDetails] = {}
    target_capacity: float | None = None
