"""May these applications be deployed beside those that run? Pure; says no with one clear paragraph."""

from __future__ import annotations

from collections.abc import Iterable

from trygon.control.state import Application
from trygon.engine.base import Capabilities, Resources
from trygon.errors import DeployError, RevisionConflictError
from trygon.spec.application import ApplicationSpec, DeploymentSpec
from trygon.spec.capacity import external_scaler_problem

__all__ = ["admit", "check_revision", "notes_for"]

_EPSILON = 1e-6


def admit(
    specs: tuple[ApplicationSpec, ...],
    running: dict[str, Application],
    resources: Resources,
    capabilities: Capabilities,
) -> None:
    """Check a deploy call as a whole; nothing of it is done unless all of it can be.

    Raises:
        DeployError: What is wrong, and what to do about it.
    """
    if not specs:
        raise DeployError("there is no application to deploy; pass at least one")
    _check_names(specs)
    for spec in specs:
        _check_graph(spec)
        _check_acyclic(spec)
        problem = external_scaler_problem(spec) if spec.external_scaler_enabled else ""
        if problem:
            raise DeployError(problem)
    others = [
        application.target or application.serving
        for name, application in running.items()
        if not application.deleting and all(name != spec.name for spec in specs)
    ]
    beside = [revision.spec for revision in others if revision is not None]
    _check_routes(specs, beside)
    if capabilities.gpus:
        _check_resources(specs, beside, resources)


def check_revision(application: Application | None, name: str, seen: int) -> None:
    """Check that an application is at the revision that a caller saw; 0 is "there is none".

    Raises:
        RevisionConflictError: It has moved.
    """
    found = 0 if application is None or application.deleting else application.last_revision
    if found != seen:
        wanted = f"revision {seen}" if seen else "no such application"
        now = f"revision {found}" if found else "deleted, or was never deployed"
        raise RevisionConflictError(
            f"application {name!r} is not as you saw it: wanted {wanted}, it is now {now}; "
            "read it again, and repeat the change if it is still right"
        )


def notes_for(spec: ApplicationSpec, resources: Resources) -> dict[str, str]:
    """Return what the user should know about deployments that are accepted all the same."""
    notes = {}
    for deployment in spec.deployments:
        cpus = deployment.options.resources.num_cpus
        if cpus > resources.cpus:
            notes[deployment.name] = (
                f"wants {cpus:g} CPUs, the machine has {resources.cpus:g}: "
                "accepted, because CPUs are shared and not reserved"
            )
    return notes


def _check_names(specs: tuple[ApplicationSpec, ...]) -> None:
    seen = set()
    for spec in specs:
        if not spec.name or "#" in spec.name or "\0" in spec.name:
            raise DeployError(f"application name {spec.name!r} is not allowed; use a name without '#'")
        if spec.name in seen:
            raise DeployError(f"application name {spec.name!r} is used twice; give each its own `name`")
        seen.add(spec.name)


def _check_graph(spec: ApplicationSpec) -> None:
    names = [deployment.name for deployment in spec.deployments]
    for name in names:
        if not name or "#" in name or "\0" in name:
            raise DeployError(f"deployment name {name!r} is not allowed; use a name without '#'")
        if names.count(name) > 1:
            raise DeployError(f"application {spec.name!r} has two deployments called {name!r}; rename one")
    if spec.ingress not in names:
        raise DeployError(f"application {spec.name!r} has no deployment called {spec.ingress!r}")
    for deployment in spec.deployments:
        for child in deployment.children:
            if child not in names:
                raise DeployError(
                    f"deployment {deployment.name!r} of application {spec.name!r} calls {child!r}, "
                    "which is not part of the application"
                )
        if deployment.options.num_replicas < 1 and not _may_be_empty(spec, deployment):
            raise DeployError(
                f"deployment {deployment.name!r} of application {spec.name!r} wants "
                f"{deployment.options.num_replicas} replicas; ask for at least 1"
            )


def _may_be_empty(spec: ApplicationSpec, deployment: DeploymentSpec) -> bool:
    """None is a number that somebody may ask for on purpose.

    Who calls it then waits for the autoscaler, or hears of it at once where there is none.
    """
    is_scaled = deployment.options.autoscaling is not None
    return is_scaled or spec.target_capacity == 0 or spec.external_scaler_enabled


def _check_acyclic(spec: ApplicationSpec) -> None:
    """Replicas drain parents first, which has no beginning in a circle."""
    waiting = {d.name: set(d.children) for d in spec.deployments}
    while waiting:
        leaves = {name for name, children in waiting.items() if not children & waiting.keys()}
        if not leaves:
            raise DeployError(
                f"deployments {sorted(waiting)} of application {spec.name!r} call each other in a circle"
            )
        waiting = {name: children for name, children in waiting.items() if name not in leaves}


def _check_routes(specs: tuple[ApplicationSpec, ...], beside: list[ApplicationSpec]) -> None:
    taken = {spec.route_prefix: spec.name for spec in beside if spec.route_prefix is not None}
    for spec in specs:
        prefix = spec.route_prefix
        if prefix is None:
            continue
        if not prefix.startswith("/") or (prefix != "/" and prefix.endswith("/")):
            raise DeployError(
                f"route_prefix {prefix!r} of application {spec.name!r} must start with '/' and not end with '/'"
            )
        if prefix in taken:
            raise DeployError(
                f"route_prefix {prefix!r} of application {spec.name!r} is taken by application "
                f"{taken[prefix]!r}; choose another route_prefix, or delete that application first"
            )
        taken[prefix] = spec.name


def _check_resources(
    specs: tuple[ApplicationSpec, ...], beside: list[ApplicationSpec], resources: Resources
) -> None:
    """Refuse what could not run even when nothing else changes: all revisions wanted must fit together."""
    for spec in specs:
        for deployment in spec.deployments:
            _check_fractions(spec, deployment)
    names = {"GPU"} | {
        name for spec in specs for d in spec.deployments for name in d.options.resources.resources
    }
    for name in sorted(names):
        new = list(_demands(specs, name))
        wanted = sum(amount for _, amount in new)
        have = resources.gpus if name == "GPU" else resources.custom.get(name, 0.0)
        used = list(_demands(beside, name))
        taken = sum(amount for _, amount in used)
        if wanted and wanted + taken > have + _EPSILON:
            parts = ", ".join(f"{who} {amount:g}" for who, amount in new)
            in_use = ", ".join(f"{who} {amount:g}" for who, amount in used) or "nobody"
            raise DeployError(
                f"not enough {name!r}: wanted {wanted:g} ({parts}), the machine has {have:g}, "
                f"in use {taken:g} ({in_use}); ask for less, fewer replicas, or delete something"
            )


def _check_fractions(spec: ApplicationSpec, deployment: DeploymentSpec) -> None:
    gpus = deployment.options.resources.num_gpus
    if gpus > 1 and gpus != int(gpus):
        raise DeployError(
            f"deployment {deployment.name!r} of application {spec.name!r} wants {gpus:g} GPUs; "
            "more than one GPU must be a whole number"
        )


def _demands(specs: Iterable[ApplicationSpec], name: str) -> Iterable[tuple[str, float]]:
    for spec in specs:
        for deployment in spec.deployments:
            request = deployment.options.resources
            amount = request.num_gpus if name == "GPU" else request.resources.get(name, 0.0)
            if amount > 0:
                count = deployment.options.num_replicas
                yield f"{spec.name}/{deployment.name}: {count} x {amount:g} =", count * amount
