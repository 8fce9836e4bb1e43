"""The state of an instance in Prometheus's text format. Pure.

Names and numbers are Ray Serve's, with ``trygon_`` for its ``ray_serve_``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trygon.spec.details import InstanceDetails
from trygon.spec.status import ApplicationStatus, DeploymentStatus, ProxyStatus, ReplicaState

__all__ = ["CONTENT_TYPE", "metrics_text"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

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

_Samples = Iterable[tuple[dict[str, str], float]]


def metrics_text(details: InstanceDetails) -> str:
    """Return all gauges, one family after the other."""
    applications = details.applications.values()
    deployments = [(app.name, deployment) for app in applications for deployment in app.deployments.values()]
    families = (
        _family(
            "trygon_application_status",
            "Status of the application: " + _legend(_APPLICATION),
            [({"application": app.name}, _APPLICATION[app.status]) for app in applications],
        ),
        _family(
            "trygon_application_revision",
            "Number of the newest revision.",
            [({"application": app.name}, app.revision) for app in applications],
        ),
        _family(
            "trygon_deployment_status",
            "Status of the deployment: " + _legend(_DEPLOYMENT),
            [
                ({"application": app, "deployment": deployment.name}, _DEPLOYMENT[deployment.status])
                for app, deployment in deployments
            ],
        ),
        _family(
            "trygon_deployment_target_replicas",
            "Replicas that are wanted.",
            [
                ({"application": app, "deployment": deployment.name}, deployment.target_num_replicas)
                for app, deployment in deployments
            ],
        ),
        _family(
            "trygon_deployment_replicas",
            "Replicas that there are, by state.",
            [
                (
                    {"application": app, "deployment": deployment.name, "state": state},
                    sum(replica.state is state for replica in deployment.replicas),
                )
                for app, deployment in deployments
                for state in _ALWAYS_SHOWN
            ],
        ),
        _family(
            "trygon_deployment_replica_healthy",
            "Whether the replica takes requests: 1 or 0.",
            [
                (
                    {"application": app, "deployment": deployment.name, "replica": replica.replica_id},
                    replica.state is ReplicaState.RUNNING,
                )
                for app, deployment in deployments
                for replica in deployment.replicas
            ],
        ),
        _family(
            "trygon_proxy_status",
            "Status of the ingress process: " + _legend(_PROXY),
            [({"proxy": slot}, _PROXY[proxy.status]) for slot, proxy in details.proxies.items()],
        ),
    )
    return "".join(families)


def _legend(
    numbers: dict[ApplicationStatus, int] | dict[DeploymentStatus, int] | dict[ProxyStatus, int],
) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items()) + "."


def _family(name: str, text: str, samples: _Samples) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escape(found)}"' for label, found in labels.items())
        lines.append(f"{name}{{{shown}}} {value:g}")
    return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
