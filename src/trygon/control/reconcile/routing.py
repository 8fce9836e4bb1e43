"""The routing table that follows from the state. Pure.

New requests go to the serving revision. Replicas that it replaces stay listed, under the revision they are called
by, until they leave themselves, because their parents still call them. A replica that belongs to several
revisions is listed for each of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

import msgspec

from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.state import Application, ControllerState, Replica, Revision
from trygon.spec.application import ApplicationSpec, DeploymentOptions
from trygon.spec.routing import ApplicationRoute, DeploymentTargets, ReplicaDeath, ReplicaTarget, RoutingTable

__all__ = ["Routes", "build_table"]


class _Part(msgspec.Struct, frozen=True):
    """What the table says of one application."""

    routes: tuple[ApplicationRoute, ...] = ()
    deployments: tuple[DeploymentTargets, ...] = ()


class Routes:
    """The routing table by application: only what changed is made anew."""

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}
        #: The names of `_parts`, in order.
        self._names: list[str] = []
        self._deaths: tuple[ReplicaDeath, ...] = ()

    def refresh(self, state: ControllerState, names: Iterable[str]) -> bool:
        """Make the parts of these applications anew; return whether any is not what it was."""
        deaths = tuple(state.deaths)
        has_changed = deaths != self._deaths
        self._deaths = deaths
        for name in names:
            application = state.applications.get(name)
            part = _part(application) if application is not None else None
            if part == self._parts.get(name):
                continue
            has_changed = True
            if part is None:
                del self._parts[name]
                del self._names[bisect_left(self._names, name)]
            else:
                if name not in self._parts:
                    insort(self._names, name)
                self._parts[name] = part
        return has_changed

    def table(self, version: int) -> RoutingTable:
        """Return the complete table."""
        parts = [self._parts[name] for name in self._names]
        return RoutingTable(
            version=version,
            applications=tuple(route for part in parts for route in part.routes),
            deployments=tuple(targets for part in parts for targets in part.deployments),
            deaths=self._deaths,
        )


def build_table(state: ControllerState, version: int) -> RoutingTable:
    """Return the complete table, made from nothing."""
    routes = Routes()
    routes.refresh(state, state.applications)
    return routes.table(version)


def _part(application: Application) -> _Part:
    # A first revision that failed has a route too: its callers hear why, not that there is no such path.
    shown = application.serving or (application.target if application.failure else None)
    route = (
        ApplicationRoute(
            app_name=application.name,
            route_prefix=shown.spec.route_prefix,
            ingress=shown.spec.ingress,
            revision=shown.number,
            access_log=_writes_access_log(shown.spec),
        )
        if shown is not None
        else None
    )
    return _Part((route,) if route is not None else (), _targets(application))


def _writes_access_log(spec: ApplicationSpec) -> bool:
    """The application's logging options, and over them those of the deployment that takes its requests."""
    options = {**(spec.logging or {}), **(spec.deployment(spec.ingress).options.logging or {})}
    return bool(options.get("enable_access_log", True))


def _targets(application: Application) -> tuple[DeploymentTargets, ...]:
    listed = _listed_for_leavers(application)
    # A revision that was given up is of interest only where nothing else serves.
    hopeful = application.wanted if application.serving is not None else application.target
    for revision in (hopeful, application.serving):
        if revision is not None:
            for deployment in revision.spec.deployments:
                replicas = _takers(application, revision, deployment.name)
                listed[deployment.name, revision.number] = (deployment.options, replicas)
    return tuple(
        DeploymentTargets(
            app_name=application.name,
            name=name,
            revision=number,
            max_ongoing_requests=options.max_ongoing_requests,
            tunes_ongoing_requests=options.tunes_ongoing_requests,
            max_queued_requests=options.max_queued_requests,
            backpressure_status_code=options.backpressure_status_code,
            backpressure_retry_after_s=options.backpressure_retry_after_s,
            queue=options.queue,
            replicas=tuple(
                ReplicaTarget(r.replica_id, r.launch.address)
                for r in sorted(replicas, key=lambda replica: replica.replica_id)
            ),
            unavailable=_unavailable(application, name, number),
        )
        for (name, number), (options, replicas) in sorted(listed.items(), key=lambda item: item[0])
    )


def _takers(application: Application, revision: Revision, deployment: str) -> list[Replica]:
    if revision is application.serving:
        return application.rotation(deployment)
    return _ready(application, deployment, revision.generation(deployment))


def _ready(application: Application, deployment: str, generation: int) -> list[Replica]:
    return [r for r in application.replicas.of(deployment, generation) if r.phase is ReplicaPhase.READY]


def _listed_for_leavers(
    application: Application,
) -> dict[tuple[str, int], tuple[DeploymentOptions, list[Replica]]]:
    """Return the children of replicas that no revision needs any more and that still finish requests."""
    kept = [revision for revision in (application.serving, application.target) if revision is not None]
    listed: dict[tuple[str, int], tuple[DeploymentOptions, list[Replica]]] = {}
    for name, generation in application.replicas.groups():
        if any(name in r.by_name and generation == r.generation(name) for r in kept):
            continue
        for launch in {
            r.launch.revision: r.launch for r in application.replicas.of(name, generation)
        }.values():
            for sibling, its_generation in launch.generations.items():
                ready = _ready(application, sibling, its_generation)
                if ready:
                    listed[sibling, launch.revision] = (ready[0].launch.options, ready)
    return listed


def _unavailable(application: Application, deployment: str, revision: int) -> str:
    if application.deleting:
        return f"application {application.name!r} is being deleted"
    serving = application.serving
    if application.failure and (serving is None or serving.number != revision):
        culprit = application.failed_deployment
        return f"deployment {deployment!r} is not available: {culprit!r} could not be started"
    return ""
