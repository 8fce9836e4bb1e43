"""What is known of an instance, in the shape of Ray Serve's REST API. Pure: the state in, values out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from trygon.control.reconcile.status import REPLICA_STATES, application_status
from trygon.control.state import Application, ControllerState, Replica, Revision
from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec, ResourceRequest
from trygon.spec.details import (
    ApplicationDetails,
    ControllerInfo,
    DeploymentDetails,
    InstanceDetails,
    ProxyDetails,
    ReplicaDetails,
)
from trygon.spec.instance import InstanceRecord
from trygon.spec.status import DeploymentStatusOverview, InstanceStatus, ProxyStatus

__all__ = ["application_details", "applications_details", "instance_details", "instance_status"]


def instance_status(state: ControllerState, proxies: Mapping[str, ProxyStatus]) -> InstanceStatus:
    """Return everything that runs; `proxies` are the ingress processes by slot."""
    return InstanceStatus(
        proxies=dict(proxies),
        applications={
            name: application_status(application) for name, application in state.applications.items()
        },
        target_capacity=state.target_capacity,
    )


def instance_details(
    state: ControllerState,
    record: InstanceRecord,
    proxies: Mapping[str, ProxyStatus],
    *,
    controller_pid: int,
    now: float,
    wall_now: float,
) -> InstanceDetails:
    """Return everything that runs, replica by replica.

    Args:
        state: What is known.
        record: The instance.
        proxies: Its ingress processes, by slot.
        controller_pid: The process that decides.
        now: Monotonic time.
        wall_now: The same moment, in seconds since the epoch.
    """
    return InstanceDetails(
        controller_info=ControllerInfo(
            pid=controller_pid, log_file_path=os.path.join(record.log_dir, "controller.log")
        ),
        proxy_location="EveryNode" if proxies else "Disabled",
        http_options={
            "host": record.host,
            "port": record.port,
            **(msgspec.to_builtins(state.http_timeouts) if state.http_timeouts else {}),
        },
        proxies={
            slot: ProxyDetails(
                status=status, log_file_path=os.path.join(record.log_dir, f"ingress_{slot}.log")
            )
            for slot, status in proxies.items()
        },
        applications=applications_details(state, now=now, wall_now=wall_now),
        target_capacity=state.target_capacity,
    )


def applications_details(
    state: ControllerState, *, now: float, wall_now: float
) -> dict[str, ApplicationDetails]:
    """Return every application, by name.

    Args:
        state: What the controller knows.
        now: The monotonic time, in seconds.
        wall_now: The same moment since the epoch.
    """
    return {
        name: application_details(application, now=now, started_offset_s=wall_now - now)
        for name, application in state.applications.items()
    }


def application_details(
    application: Application, *, now: float, started_offset_s: float
) -> ApplicationDetails:
    """Return one application; `now` is monotonic, `started_offset_s` turns monotonic times into wall-clock times."""
    revision = application.target or application.serving
    status = application_status(application)
    spec = revision.spec if revision is not None else None
    ingress = spec.deployment(spec.ingress) if spec is not None else None
    return ApplicationDetails(
        name=application.name,
        route_prefix=spec.route_prefix if spec is not None else None,
        docs_path=_docs_path(spec.route_prefix, ingress) if spec is not None else None,
        status=status.status,
        message=status.message,
        last_deployed_time_s=status.last_deployed_time_s,
        deployed_app_config=spec.config if spec is not None else None,
        source="declarative" if spec is not None and spec.config is not None else "imperative",
        deployments={
            name: _deployment(application, revision, name, overview, now=now, offset_s=started_offset_s)
            for name, overview in status.deployments.items()
        },
        external_scaler_enabled=spec is not None and spec.external_scaler_enabled,
        deployment_topology=_topology(spec) if spec is not None else None,
        revision=application.last_revision,
        serving_revision=application.serving.number if application.serving is not None else None,
    )


def _docs_path(route_prefix: str | None, ingress: DeploymentSpec | None) -> str | None:
    if route_prefix is None or ingress is None or ingress.docs_path is None:
        return None
    return route_prefix.rstrip("/") + ingress.docs_path


def _deployment(
    application: Application,
    revision: Revision | None,
    name: str,
    overview: DeploymentStatusOverview,
    *,
    now: float,
    offset_s: float,
) -> DeploymentDetails:
    # What leaves with an older revision is still listed, though its options are no longer wanted.
    spec = next((d for d in revision.spec.deployments if d.name == name), None) if revision else None
    return DeploymentDetails(
        name=name,
        status=overview.status,
        status_trigger=overview.status_trigger,
        message=overview.message,
        deployment_config=_full_config(revision, name, spec.options) if spec and revision else {"name": name},
        target_num_replicas=_num_wanted(application, revision, spec),
        autoscaling_detail=_scaling(application, name, now),
        required_resources=_resources(spec.options.resources) if spec is not None else {},
        replicas=[
            _replica(replica, offset_s)
            for replica in application.replicas.values()
            if replica.launch.deployment == name
        ],
    )


def _num_wanted(application: Application, revision: Revision | None, spec: DeploymentSpec | None) -> int:
    if spec is None or revision is None or application.deleting:
        return 0
    return application.count(revision, spec)


def _scaling(application: Application, name: str, now: float) -> dict[str, Any] | None:
    revision = application.serving or application.target
    scaler = application.scaler(revision, name) if revision is not None else None
    return None if scaler is None or application.deleting else scaler.summary(now)


def _replica(replica: Replica, offset_s: float) -> ReplicaDetails:
    return ReplicaDetails(
        replica_id=replica.launch.replica_tag,
        state=REPLICA_STATES[replica.phase],
        pid=replica.pid or None,
        start_time_s=round(replica.started_at + offset_s, 3),
        log_file_path=replica.launch.log_path,
    )


def _full_config(revision: Revision, name: str, options: DeploymentOptions) -> dict[str, Any]:
    """Return options as they were asked for; `target_capacity` scales what runs of them."""
    config = _config(name, options)
    return {**config, "num_replicas": revision.spec.full_replicas.get(name, options.num_replicas)}


def _config(name: str, options: DeploymentOptions) -> dict[str, Any]:
    """Return options under the names of a configuration file."""
    actor_options: dict[str, Any] = {
        "num_cpus": options.resources.num_cpus,
        "num_gpus": options.resources.num_gpus,
    }
    if options.resources.memory_bytes:
        actor_options["memory"] = options.resources.memory_bytes
    if options.resources.resources:
        actor_options["resources"] = options.resources.resources
    if options.resources.accelerator_type is not None:
        actor_options["accelerator_type"] = options.resources.accelerator_type
    return {
        "name": name,
        "num_replicas": options.num_replicas,
        "max_ongoing_requests": options.max_ongoing_requests,
        "max_queued_requests": options.max_queued_requests,
        "user_config": options.user_config,
        "autoscaling_config": options.autoscaling,
        "graceful_shutdown_wait_loop_s": options.graceful_shutdown_wait_loop_s,
        "graceful_shutdown_timeout_s": options.graceful_shutdown_timeout_s,
        "health_check_period_s": options.health_check_period_s,
        "health_check_timeout_s": options.health_check_timeout_s,
        "ray_actor_options": actor_options,
        "logging_config": options.logging,
    }


def _resources(request: ResourceRequest) -> dict[str, float]:
    found = {"CPU": request.num_cpus, "GPU": request.num_gpus, "memory": request.memory_bytes}
    return {name: amount for name, amount in (found | request.resources).items() if amount or name == "CPU"}


def _topology(spec: ApplicationSpec) -> dict[str, Any]:
    return {
        "app_name": spec.name,
        "ingress_deployment": spec.ingress,
        "nodes": {
            deployment.name: {
                "name": deployment.name,
                "app_name": spec.name,
                "is_ingress": deployment.name == spec.ingress,
                "outbound_deployments": [
                    {"name": child, "app_name": spec.name} for child in deployment.children
                ],
            }
            for deployment in spec.deployments
        },
    }
