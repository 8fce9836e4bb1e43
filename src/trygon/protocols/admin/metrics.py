"""What the controller knows of an instance, as gauges. Pure; names and numbers are Ray Serve's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trygon.observability.metrics import FamilySnapshot
from trygon.spec.details import InstanceDetails
from trygon.spec.status import ApplicationStatus, DeploymentStatus, ProxyStatus, ReplicaState

__all__ = ["state_families"]

_APPLICATION: Final = {
    ApplicationStatus.DEPLOY_FAILED: 1,
    ApplicationStatus.UNHEALTHY: 2,
    ApplicationStatus.NOT_STARTED: 3,
    ApplicationStatus.DELETING: 4,
    ApplicationStatus.DEPLOYING: 5,
    ApplicationStatus.RUNNING: 6,
}
_DEPLOYMENT: Final = {
    DeploymentStatus.DEPLOY_FAILED: 1,
    DeploymentStatus.UNHEALTHY: 2,
    DeploymentStatus.UPDATING: 3,
    DeploymentStatus.UPSCALING: 4,
    DeploymentStatus.DOWNSCALING: 5,
    DeploymentStatus.HEALTHY: 6,
}
_PROXY: Final = {
    ProxyStatus.STARTING: 1,
    ProxyStatus.HEALTHY: 2,
    ProxyStatus.UNHEALTHY: 3,
    ProxyStatus.DRAINING: 4,
    ProxyStatus.DRAINED: 5,
}
#: Shown even when it is 0, so that a graph has no holes.
_ALWAYS_SHOWN: Final = (ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.STOPPING)

_DEPLOYMENT_LABELS: Final = ("application", "deployment")


def state_families(details: InstanceDetails | None) -> list[FamilySnapshot]:
    """Return all gauges; without details, that the controller does not answer."""
    up = _family(
        "controller_up", "Whether the controller answers: 1 or 0.", (), [((), float(details is not None))]
    )
    return [up] if details is None else [up, *_families(details)]


def _families(details: InstanceDetails) -> list[FamilySnapshot]:
    applications = details.applications.values()
    deployments = [
        ((app.name, deployment.name), deployment)
        for app in applications
        for deployment in app.deployments.values()
    ]
    return [
        _family(
            "application_status",
            "Status of the application: " + _legend(_APPLICATION),
            ("application",),
            [((app.name,), _APPLICATION[app.status]) for app in applications],
        ),
        _family(
            "application_revision",
            "Number of the newest revision.",
            ("application",),
            [((app.name,), app.revision) for app in applications],
        ),
        _family(
            "deployment_status",
            "Status of the deployment: " + _legend(_DEPLOYMENT),
            _DEPLOYMENT_LABELS,
            [(names, _DEPLOYMENT[deployment.status]) for names, deployment in deployments],
        ),
        _family(
            "deployment_target_replicas",
            "Replicas that are wanted.",
            _DEPLOYMENT_LABELS,
            [(names, deployment.target_num_replicas) for names, deployment in deployments],
        ),
        _family(
            "deployment_replicas",
            "Replicas that there are, by state.",
            (*_DEPLOYMENT_LABELS, "state"),
            [
                ((*names, state), sum(replica.state is state for replica in deployment.replicas))
                for names, deployment in deployments
                for state in _ALWAYS_SHOWN
            ],
        ),
        _family(
            "deployment_replica_healthy",
            "Whether the replica takes requests: 1 or 0.",
            (*_DEPLOYMENT_LABELS, "replica"),
            [
                ((*names, replica.replica_id), replica.state is ReplicaState.RUNNING)
                for names, deployment in deployments
                for replica in deployment.replicas
            ],
        ),
        _family(
            "proxy_status",
            "Status of the ingress process: " + _legend(_PROXY),
            ("proxy",),
            [((slot,), _PROXY[proxy.status]) for slot, proxy in details.proxies.items()],
        ),
    ]


def _legend(
    numbers: dict[ApplicationStatus, int] | dict[DeploymentStatus, int] | dict[ProxyStatus, int],
) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items()) + "."


def _family(
    name: str, text: str, labels: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], float]]
) -> FamilySnapshot:
    return FamilySnapshot(name, "gauge", text, labels, (), False, "", dict(samples))
