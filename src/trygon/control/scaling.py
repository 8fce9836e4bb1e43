"""Folds what is heard of the load, and what was decided, into the scalers of an application. Pure but for them."""

from __future__ import annotations

from typing import Any

from trygon.control.events import (
    CallerLost,
    DeploymentScaled,
    LoadReported,
    PolicyAnswered,
    PolicyAsked,
    ReplicaMeasured,
)
from trygon.control.scaler import Scaler
from trygon.control.state import Application, ControllerState, Replica, Revision
from trygon.scaling.decision import Bounds
from trygon.spec.application import ApplicationSpec, DeploymentSpec
from trygon.spec.autoscaling import BUILT_IN_POLICIES, DEFAULT_POLICY, AutoscalingConfig
from trygon.spec.capacity import scaled
from trygon.spec.helper import UserFunction

__all__ = [
    "ScalingEvent",
    "adopt_replica",
    "end_adoption",
    "fold_scaling",
    "policy_of",
    "restore_scalers",
    "scale_revision",
]

ScalingEvent = LoadReported | CallerLost | ReplicaMeasured | DeploymentScaled | PolicyAsked | PolicyAnswered


def fold_scaling(state: ControllerState, event: ScalingEvent, now: float) -> set[str]:
    """Change the scalers by `event`; return the names of the applications that must be reconciled."""
    if isinstance(event, LoadReported):
        return _take_loads(state, event, now)
    if isinstance(event, CallerLost):
        return {
            application.name
            for application in state.applications.values()
            for scaler in _all(application)
            if scaler.lose(event.caller, now)
        }
    if isinstance(event, ReplicaMeasured):
        _take_stats(state, event, now)
        return set()
    application = state.applications.get(event.app_name)
    if application is None:
        return set()
    if isinstance(event, DeploymentScaled):
        return _take_decision(application, event, now)
    for name, scaler in _asked(application, event):
        if isinstance(event, PolicyAsked):
            scaler.is_asking = True
            continue
        if event.error and event.error != scaler.policy_error:
            application.note(now, name, f"the autoscaling policy failed: {event.error.strip()}")
        scaler.answer(event.proposals.get(name), event.error, now)
    return {application.name}


def _all(application: Application) -> list[Scaler]:
    """Return each scaler once; revisions share them."""
    return list({id(scaler): scaler for scaler in application.scalers.values()}.values())


def _take_loads(state: ControllerState, event: LoadReported, now: float) -> set[str]:
    touched = set()
    for load in event.loads:
        application = state.applications.get(load.app_name)
        if application is None:
            continue
        found = {id(s): s for (name, _), s in application.scalers.items() if name == load.deployment}
        for scaler in found.values():
            scaler.hear(event.caller, load, now)
            touched.add(load.app_name)
    return touched


def _take_stats(state: ControllerState, event: ReplicaMeasured, now: float) -> None:
    application = state.owner(event.replica_id)
    if application is None:
        return
    name = application.replicas[event.replica_id].launch.deployment
    for (deployment, _), scaler in application.scalers.items():
        if deployment == name:
            scaler.measure(event.replica_id, event.stats, application.replicas, now)


def _take_decision(application: Application, event: DeploymentScaled, now: float) -> set[str]:
    scaler = application.scalers.get((event.deployment, event.revision))
    if scaler is None:
        return set()
    decision, before = event.decision, scaler.decision
    if decision.target != scaler.target:
        application.note(
            now,
            event.deployment,
            f"scaled from {scaler.target} to {decision.target} replicas: {decision.why}",
        )
    elif (before is None or decision.held_by != before.held_by) and decision.held_by not in ("", "policy"):
        application.note(
            now, event.deployment, f"{decision.held_by} holds it at {scaler.target}: {decision.why}"
        )
    scaler.take(decision, event.window, now)
    return {application.name}


def _asked(application: Application, event: PolicyAsked | PolicyAnswered) -> list[tuple[str, Scaler]]:
    return [
        (name, scaler)
        for (name, number), scaler in application.scalers.items()
        if number == event.revision
        and scaler.policy is not None
        and (name == event.owner or (not event.owner and scaler.is_shared))
    ]


# ---- which scalers there are


def scale_revision(application: Application, revision: Revision, now: float) -> None:
    """Give each deployment of a new target its scaler: a new one, or the one that goes on."""
    kept = {r.number for r in (application.serving, revision) if r is not None}
    before = application.serving
    made = {
        deployment.name: scaler
        for deployment in revision.spec.deployments
        if (scaler := _scaler_for(application, before, revision, deployment, now)) is not None
    }
    application.scalers = {key: scaler for key, scaler in application.scalers.items() if key[1] in kept}
    application.scalers |= {(name, revision.number): scaler for name, scaler in made.items()}


def _scaler_for(
    application: Application,
    before: Revision | None,
    revision: Revision,
    deployment: DeploymentSpec,
    now: float,
) -> Scaler | None:
    options = deployment.options.autoscaling
    if options is None:
        return None
    config = _config(options)
    bounds = _bounds(config, revision.spec)
    policy = policy_of(revision.spec, deployment)
    is_shared = revision.spec.autoscaling_policy is not None
    old = application.scaler(before, deployment.name) if before is not None else None
    if old is not None and old.is_same(config, bounds, policy):
        return old
    target = deployment.options.num_replicas
    if before is not None and config.initial_replicas is None and deployment.name in before.by_name:
        # Bounds that change must not throw away what the load has taught.
        target = application.count(before, before.by_name[deployment.name])
    return Scaler(config, bounds, bounds.clip(target), policy=policy, is_shared=is_shared, now=now)


def _config(options: dict[str, Any]) -> AutoscalingConfig:
    return AutoscalingConfig(**options)


def _bounds(config: AutoscalingConfig, spec: ApplicationSpec) -> Bounds:
    return Bounds(
        scaled(config.min_replicas, spec.target_capacity), scaled(config.max_replicas, spec.target_capacity)
    )


def policy_of(spec: ApplicationSpec, deployment: DeploymentSpec) -> UserFunction | None:
    """Return the user's function that decides on the replicas of a deployment; None for a built-in policy."""
    shared = spec.autoscaling_policy
    if shared is not None:
        return UserFunction(import_path=shared.import_path, kwargs=shared.kwargs)
    policy = (deployment.options.autoscaling or {}).get("policy") or {}
    function = policy.get("policy_function", DEFAULT_POLICY)
    if function in BUILT_IN_POLICIES:
        return None
    kwargs = policy.get("policy_kwargs") or {}
    if deployment.policy:
        return UserFunction(definition=deployment.policy, name=function, kwargs=kwargs)
    return UserFunction(import_path=function, kwargs=kwargs)


# ---- a restarted controller


def adopt_replica(application: Application, replica: Replica) -> None:
    """Count a replica that runs already: what was decided is not saved, but it is what runs."""
    for revision in (application.target, application.serving):
        if revision is None or not replica.live or replica.launch.is_helper:
            continue
        name = replica.launch.deployment
        scaler = application.scaler(revision, name)
        if (
            scaler is not None
            and scaler.is_adopting
            and revision.generation(name) == replica.launch.generation
        ):
            count = sum(1 for r in application.of(name, replica.launch.generation) if r.live)
            scaler.target = scaler.before = max(1, count)


def restore_scalers(application: Application, now: float) -> None:
    """Make the scalers of an application that was read from the store."""
    for revision in (application.serving, application.target):
        if revision is None or application.deleting:
            continue
        scale_revision(application, revision, now)
        for (_, number), scaler in application.scalers.items():
            if number == revision.number:
                scaler.is_adopting = True


def end_adoption(state: ControllerState) -> None:
    """Count no more: every replica that ran has been adopted."""
    for application in state.applications.values():
        for scaler in application.scalers.values():
            scaler.is_adopting = False
