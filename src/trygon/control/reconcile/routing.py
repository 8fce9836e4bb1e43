"""The routing table that follows from the state. Pure.

New requests go to the serving revision. Replicas of a revision that drains stay listed until they leave
themselves, because their parents still call them.
"""

from __future__ import annotations

from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.state import Application, ControllerState
from trygon.spec.application import ApplicationSpec, DeploymentOptions
from trygon.spec.routing import ApplicationRoute, DeploymentTargets, ReplicaTarget, RoutingTable

__all__ = ["build_table"]


def build_table(state: ControllerState, version: int) -> RoutingTable:
    """Return the complete table."""
    routes = []
    deployments: list[DeploymentTargets] = []
    for _, application in sorted(state.applications.items()):
        # A first revision that failed has a route too: its callers hear why, not that there is no such path.
        shown = application.serving or (application.target if application.failure else None)
        if shown is not None:
            routes.append(
                ApplicationRoute(
                    app_name=application.name,
                    route_prefix=shown.spec.route_prefix,
                    ingress=shown.spec.ingress,
                    revision=shown.number,
                    access_log=_writes_access_log(shown.spec),
                )
            )
        deployments += _targets(application)
    return RoutingTable(
        version=version,
        applications=tuple(routes),
        deployments=tuple(deployments),
        deaths=tuple(state.deaths),
    )


def _writes_access_log(spec: ApplicationSpec) -> bool:
    """The application's logging options, and over them those of the deployment that takes its requests."""
    options = {**(spec.logging or {}), **(spec.deployment(spec.ingress).options.logging or {})}
    return bool(options.get("enable_access_log", True))


def _targets(application: Application) -> list[DeploymentTargets]:
    ready: dict[tuple[str, int], list[ReplicaTarget]] = {}
    options: dict[tuple[str, int], DeploymentOptions] = {}
    for replica in application.replicas.values():
        if replica.phase is ReplicaPhase.READY:
            key = (replica.launch.deployment, replica.launch.revision)
            ready.setdefault(key, []).append(ReplicaTarget(replica.replica_id, replica.launch.address))
            options[key] = replica.launch.options
    # A revision that was given up is of interest only where nothing else serves.
    hopeful = application.wanted if application.serving is not None else application.target
    for revision in (application.serving, hopeful):
        if revision is not None:
            options.update({(d.name, revision.number): d.options for d in revision.spec.deployments})
    return [
        DeploymentTargets(
            app_name=application.name,
            name=name,
            revision=number,
            max_ongoing_requests=option.max_ongoing_requests,
            max_queued_requests=option.max_queued_requests,
            backpressure_status_code=option.backpressure_status_code,
            backpressure_retry_after_s=option.backpressure_retry_after_s,
            replicas=tuple(sorted(ready.get((name, number), ()), key=lambda target: target.replica_id)),
            unavailable=_unavailable(application, name, number),
        )
        for (name, number), option in sorted(options.items(), key=lambda item: item[0])
    ]


def _unavailable(application: Application, deployment: str, revision: int) -> str:
    if application.deleting:
        return f"application {application.name!r} is being deleted"
    serving = application.serving
    if application.failure and (serving is None or serving.number != revision):
        culprit = application.failed_deployment
        return f"deployment {deployment!r} is not available: {culprit!r} could not be started"
    return ""
