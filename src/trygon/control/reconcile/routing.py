"""The routing table that follows from the state. Pure.

New requests go to the serving revision. Replicas that it replaces stay listed, under the revision they are called
by, until they leave themselves, because their parents still call them. A replica that belongs to several
revisions is listed for each of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Any

import msgspec

from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.state import Application, ControllerState, Replica, Revision
from trygon.observability.logs import LogOptions
from trygon.spec.application import ApplicationSpec, DeploymentOptions
from trygon.spec.helper import helper_address, helper_key
from trygon.spec.routers import CUSTOM, RouterRule
from trygon.spec.routing import (
    ApplicationRoute,
    DeploymentTargets,
    HttpTimeouts,
    ReplicaDeath,
    ReplicaTarget,
    RoutingTable,
)

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
        self._timeouts: HttpTimeouts | None = None

    def refresh(self, state: ControllerState, names: Iterable[str]) -> bool:
        """Make the parts of these applications anew; return whether any is not what it was."""
        deaths = tuple(state.deaths)
        has_changed = deaths != self._deaths or state.http_timeouts != self._timeouts
        self._deaths, self._timeouts = deaths, state.http_timeouts
        for name in names:
            application = state.applications.get(name)
            part = _part(application, state.logging, state.runtime_dir) if application is not None else None
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
            http_timeouts=self._timeouts,
        )


def build_table(state: ControllerState, version: int) -> RoutingTable:
    """Return the complete table, made from nothing."""
    routes = Routes()
    routes.refresh(state, state.applications)
    return routes.table(version)


def _part(application: Application, logging: dict[str, Any] | None, runtime_dir: str) -> _Part:
    # A first revision that failed has a route too: its callers hear why, not that there is no such path.
    shown = application.serving or (application.target if application.failure else None)
    route = (
        ApplicationRoute(
            app_name=application.name,
            route_prefix=shown.spec.route_prefix,
            ingress=shown.spec.ingress,
            revision=shown.number,
            access_log=_writes_access_log(shown.spec, logging),
        )
        if shown is not None
        else None
    )
    return _Part((route,) if route is not None else (), _targets(application, runtime_dir))


def _writes_access_log(spec: ApplicationSpec, logging: dict[str, Any] | None) -> bool:
    """Whether its requests are worth lines at the ingress: the deployment says it, else the application, or the instance."""
    ingress = spec.deployment(spec.ingress).options
    return LogOptions.from_layers(ingress.logging or spec.logging or logging).writes_access_log


def _targets(application: Application, runtime_dir: str) -> tuple[DeploymentTargets, ...]:
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
            router=_router(options.router, runtime_dir, helper_key(application.name, number)),
            replicas=tuple(
                ReplicaTarget(r.replica_id, r.launch.address)
                for r in sorted(replicas, key=lambda replica: replica.replica_id)
            ),
            load_period_s=_load_period_s(application, name, number),
            unavailable=_unavailable(application, name, number) or _empty(name, options, replicas),
        )
        for (name, number), (options, replicas) in sorted(listed.items(), key=lambda item: item[0])
    )


def _router(rule: RouterRule, runtime_dir: str, key: str) -> RouterRule:
    """Return what callers have to know of a rule: where it is asked, not what it is made with."""
    if rule.name != CUSTOM:
        return rule
    return msgspec.structs.replace(rule, address=helper_address(runtime_dir, key), kwargs={})


def _load_period_s(application: Application, deployment: str, revision: int) -> float:
    """Callers of an older revision have load too, which counts for the one that serves."""
    serving = application.serving
    scaler = application.scalers.get((deployment, revision))
    if scaler is None and serving is not None:
        scaler = application.scaler(serving, deployment)
    return 0.0 if scaler is None else scaler.period_s


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


def _empty(deployment: str, options: DeploymentOptions, replicas: list[Replica]) -> str:
    """Nothing would end a wait for a replica that nobody wants; autoscaling starts one by itself."""
    if options.num_replicas or replicas or options.autoscaling is not None:
        return ""
    return f"deployment {deployment!r} has no replicas, because none are wanted: its number, or target_capacity, is 0"


def _unavailable(application: Application, deployment: str, revision: int) -> str:
    if application.deleting:
        return f"application {application.name!r} is being deleted"
    serving = application.serving
    if application.failure and (serving is None or serving.number != revision):
        culprit = application.failed_deployment
        return f"deployment {deployment!r} is not available: {culprit!r} could not be started"
    return ""
