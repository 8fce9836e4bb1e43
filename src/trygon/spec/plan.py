"""What deploying would change: a comparison of what is wanted now with what is to be wanted. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec
from trygon.spec.effects import Effect, changed_options, effect_of, package_difference, restart_reasons
from trygon.spec.packages import PackageEnvironment

__all__ = [
    "ApplicationChange",
    "Change",
    "DeployPlan",
    "DeploymentChange",
    "InstanceGoal",
    "Need",
    "plan_changes",
    "removed_names",
    "without_definitions",
]


class InstanceGoal(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of an instance, and what its machine has."""

    #: With digests for definitions, which may be large.
    applications: tuple[ApplicationSpec, ...] = ()
    #: Names of applications whose newest revision was given up.
    failed: tuple[str, ...] = ()
    cpus: float = 0.0
    gpus: float = 0.0
    custom: dict[str, float] = {}
    #: Percentage that the numbers of replicas of configurations are scaled by; None leaves them alone.
    target_capacity: float | None = None


class Change(StrEnum):
    """What happens to a deployment or an application, from nothing to most."""

    UNCHANGED = "UNCHANGED"
    #: Options that concern the callers and the controller.
    ADJUSTED = "ADJUSTED"
    #: Its replicas take something over while they run.
    RECONFIGURED = "RECONFIGURED"
    RESIZED = "RESIZED"
    #: Its replicas are replaced by new ones.
    ROLLED = "ROLLED"
    ADDED = "ADDED"
    DELETED = "DELETED"


class DeploymentChange(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment of an application that stays."""

    name: str
    change: Change
    #: What differs, for people.
    details: tuple[str, ...] = ()


class ApplicationChange(msgspec.Struct, frozen=True, kw_only=True):
    """One application."""

    name: str
    change: Change
    details: tuple[str, ...] = ()
    deployments: tuple[DeploymentChange, ...] = ()


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a resource everything that is to run needs, against what there is."""

    resource: str
    needed: float
    available: float
    #: CPUs are shared and may be exceeded; everything else is held exclusively.
    is_shared: bool = False

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.is_shared or self.needed <= self.available


class DeployPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploy would do."""

    applications: tuple[ApplicationChange, ...] = ()
    needs: tuple[Need, ...] = ()

    @property
    def has_changes(self) -> bool:
        """Whether there is anything to do."""
        return any(application.change is not Change.UNCHANGED for application in self.applications)


def without_definitions(spec: ApplicationSpec) -> ApplicationSpec:
    """Return the specification with a digest in the place of each definition and snapshot: enough to compare."""
    return msgspec.structs.replace(
        spec,
        deployments=tuple(
            msgspec.structs.replace(
                d,
                definition=hashlib.sha256(d.definition).digest(),
                policy=hashlib.sha256(d.policy).digest() if d.policy else b"",
                router=hashlib.sha256(d.router).digest() if d.router else b"",
                modules=(),
                snapshot=_snapshot(d),
            )
            for d in spec.deployments
        ),
    )


def _snapshot(deployment: DeploymentSpec) -> str:
    """Return the digest that the controller names the deployment's own modules by."""
    if not deployment.modules:
        return deployment.snapshot
    return hashlib.sha256(msgspec.msgpack.encode(deployment.modules)).hexdigest()


def removed_names(old: Iterable[ApplicationSpec], new: Iterable[ApplicationSpec]) -> tuple[str, ...]:
    """Return the applications that came from a file and are in the new one no more; those of `serve.run` stay."""
    kept = {spec.name for spec in new}
    return tuple(spec.name for spec in old if spec.config is not None and spec.name not in kept)


def plan_changes(
    goal: InstanceGoal, new: tuple[ApplicationSpec, ...], removed: tuple[str, ...]
) -> DeployPlan:
    """Return what deploying `new` and deleting `removed` does to an instance with this goal."""
    before = {spec.name: spec for spec in goal.applications}
    wanted = {spec.name: without_definitions(spec) for spec in new}
    changes = [
        _added(spec) if name not in before else _compared(before[name], spec, is_failed=name in goal.failed)
        for name, spec in wanted.items()
    ]
    changes += [_deleted(before[name]) for name in removed if name in before]
    after = [spec for name, spec in before.items() if name not in wanted and name not in removed]
    return DeployPlan(applications=tuple(changes), needs=_needs(goal, [*after, *wanted.values()]))


def _added(spec: ApplicationSpec) -> ApplicationChange:
    return ApplicationChange(
        name=spec.name,
        change=Change.ADDED,
        deployments=tuple(
            DeploymentChange(name=d.name, change=Change.ADDED, details=(_replicas(d.options.num_replicas),))
            for d in spec.deployments
        ),
    )


def _deleted(spec: ApplicationSpec) -> ApplicationChange:
    return ApplicationChange(
        name=spec.name,
        change=Change.DELETED,
        details=("it is in the configuration no more",),
        deployments=tuple(DeploymentChange(name=d.name, change=Change.DELETED) for d in spec.deployments),
    )


def _compared(old: ApplicationSpec, new: ApplicationSpec, *, is_failed: bool) -> ApplicationChange:
    before = {d.name: d for d in old.deployments}
    names = [d.name for d in new.deployments]
    deployments = [
        DeploymentChange(name=d.name, change=Change.ADDED, details=(_replicas(d.options.num_replicas),))
        if d.name not in before
        else _deployment_change(old, new, before[d.name], d)
        for d in new.deployments
    ]
    deployments += [
        DeploymentChange(name=name, change=Change.DELETED, details=("the code has it no more",))
        for name in before
        if name not in names
    ]
    details = []
    if old.route_prefix != new.route_prefix:
        details.append(f"route_prefix {old.route_prefix!r} -> {new.route_prefix!r}")
    if old.ingress != new.ingress:
        details.append(f"requests go to {new.ingress!r} instead of {old.ingress!r}")
    if is_failed:
        details.append("its last revision failed; it is tried again")
    change = Change.ADJUSTED if details else Change.UNCHANGED
    for deployment in deployments:
        change = max(change, deployment.change, key=_weight)
    if change in {Change.ADDED, Change.DELETED}:
        # Of one of its deployments: the application itself stays.
        change = Change.ROLLED
    return ApplicationChange(
        name=new.name, change=change, details=tuple(details), deployments=tuple(deployments)
    )


def _weight(change: Change) -> int:
    return list(Change).index(change)


def _deployment_change(
    old_app: ApplicationSpec, new_app: ApplicationSpec, old: DeploymentSpec, new: DeploymentSpec
) -> DeploymentChange:
    changed = changed_options(old.options, new.options)
    reasons = restart_reasons(old_app, new_app, old, new)
    details = [*reasons, *(_difference(old.options, new.options, field) for field in changed)]
    effects = {effect_of(field) for field in changed}
    if reasons or Effect.RESTART in effects:
        change = Change.ROLLED
    elif Effect.COUNT in effects:
        change = Change.RESIZED
    elif Effect.INSIDE in effects:
        change = Change.RECONFIGURED
    else:
        change = Change.ADJUSTED if changed else Change.UNCHANGED
    return DeploymentChange(name=new.name, change=change, details=tuple(details))


def _difference(old: DeploymentOptions, new: DeploymentOptions, field: str) -> str:
    before, after = getattr(old, field), getattr(new, field)
    if field == "num_replicas":
        return f"{before} -> {_replicas(after)}"
    if (
        isinstance(before, PackageEnvironment | None)
        and isinstance(after, PackageEnvironment | None)
        and before != after
    ):
        return package_difference(before, after)
    if isinstance(before, int | float | str | None) and isinstance(after, int | float | str | None):
        return f"{field} {before!r} -> {after!r}"
    # Values of variables may be secrets, and others fill a screen.
    return f"{field} changed"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"


def _needs(goal: InstanceGoal, specs: list[ApplicationSpec]) -> tuple[Need, ...]:
    cpus = gpus = 0.0
    custom: dict[str, float] = {}
    for deployment in (d for spec in specs for d in spec.deployments):
        request, count = deployment.options.resources, deployment.options.num_replicas
        cpus += count * request.num_cpus
        gpus += count * request.num_gpus
        for name, amount in request.resources.items():
            custom[name] = custom.get(name, 0.0) + count * amount
    needs = [Need(resource="CPU", needed=cpus, available=goal.cpus, is_shared=True)]
    if gpus or goal.gpus:
        needs.append(Need(resource="GPU", needed=gpus, available=goal.gpus))
    needs += [
        Need(resource=name, needed=amount, available=goal.custom.get(name, 0.0))
        for name, amount in sorted(custom.items())
    ]
    return tuple(needs)
