"""Everything that is known of an instance, in the shape of Ray Serve's REST API.

What exists only on a cluster (node and actor ids, worker ids) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import msgspec

from trygon.spec.model import ModelMethods
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


class _Details(ModelMethods, msgspec.Struct, frozen=True, kw_only=True):
    """Made by the controller, and again by whoever reads the JSON of it, keyword by keyword or as a mapping."""

    #: Fields with values that are made of what their JSON has, and of what type.
    _nested: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        for name, kind in self._nested.items():
            # What is made already goes through as it is.
            msgspec.structs.force_setattr(self, name, msgspec.convert(getattr(self, name), kind))

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Return `obj` if it is one of these, or make one from what its JSON has; ValueError if it cannot be."""
        return obj if isinstance(obj, cls) else msgspec.convert(obj, cls)

    def model_items(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield name, value and default of each field."""
        for field in msgspec.structs.fields(self):
            yield field.name, getattr(self, field.name), field.default


class ControllerInfo(_Details, frozen=True, kw_only=True):
    """The controller's process."""

    pid: int = 0
    log_file_path: str = ""


class ProxyDetails(_Details, frozen=True, kw_only=True):
    """One ingress process; Ray Serve says proxy."""

    _nested: ClassVar[dict[str, Any]] = {"status": ProxyStatus}

    status: ProxyStatus
    log_file_path: str = ""


class ReplicaDetails(_Details, frozen=True, kw_only=True):
    """One replica."""

    _nested: ClassVar[dict[str, Any]] = {"state": ReplicaState}

    replica_id: str
    state: ReplicaState
    #: None until its process runs.
    pid: int | None = None
    #: Wall-clock seconds.
    start_time_s: float = 0.0
    log_file_path: str = ""


class DeploymentDetails(_Details, frozen=True, kw_only=True):
    """One deployment of the newest revision."""

    _nested: ClassVar[dict[str, Any]] = {
        "status": DeploymentStatus,
        "status_trigger": DeploymentStatusTrigger,
        "replicas": list[ReplicaDetails],
    }

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


class ApplicationDetails(_Details, frozen=True, kw_only=True):
    """One application."""

    _nested: ClassVar[dict[str, Any]] = {
        "status": ApplicationStatus,
        "deployments": dict[str, DeploymentDetails],
    }

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


class InstanceDetails(_Details, frozen=True, kw_only=True):
    """Everything that runs in an instance."""

    _nested: ClassVar[dict[str, Any]] = {
        "controller_info": ControllerInfo,
        "proxies": dict[str, ProxyDetails],
        "applications": dict[str, ApplicationDetails],
    }

    controller_info: ControllerInfo = ControllerInfo()
    proxy_location: str = "EveryNode"
    http_options: dict[str, Any] = {}
    grpc_options: dict[str, Any] | None = None
    #: By ingress slot.
    proxies: dict[str, ProxyDetails] = {}
    applications: dict[str, ApplicationDetails] = {}
    target_capacity: float | None = None

    @staticmethod
    def get_empty_schema_dict() -> dict[str, Any]:
        """Return what is answered while nothing runs."""
        empty: dict[str, Any] = msgspec.to_builtins(InstanceDetails())
        return empty
