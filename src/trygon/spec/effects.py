"""What a change of an application costs: which of its parts a replica takes over, and which start it anew. Pure.

The one table of it: `trygon plan` says by it what a deploy would do, and the controller does it by it.
"""

from __future__ import annotations

import re
from enum import StrEnum

from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec
from trygon.spec.packages import PackageEnvironment

__all__ = ["Effect", "changed_options", "effect_of", "package_difference", "restart_reasons"]


class Effect(StrEnum):
    """What follows from another value of an option."""

    #: Something that the controller, the ingress and the callers do; a replica does not notice.
    OUTSIDE = "outside"
    #: There are more replicas, or fewer.
    COUNT = "count"
    #: A replica takes it over while it runs.
    INSIDE = "inside"
    #: New replicas replace the old ones.
    RESTART = "restart"


_EFFECTS = {
    **dict.fromkeys(("num_replicas", "autoscaling"), Effect.COUNT),
    **dict.fromkeys(("user_config", "max_ongoing_requests", "logging"), Effect.INSIDE),
    **dict.fromkeys(
        (
            *("max_queued_requests", "backpressure_status_code", "backpressure_retry_after_s", "queue"),
            *("health_check_period_s", "health_check_timeout_s"),
            *("graceful_shutdown_timeout_s", "graceful_shutdown_wait_loop_s"),
            *("max_constructor_retry_count", "max_surge_percent", "rolling_update_percentage", "inert"),
        ),
        Effect.OUTSIDE,
    ),
}
_PASSWORD = re.compile(r"//[^/@\s]+@")


def effect_of(option: str) -> Effect:
    """Return what another value of an option costs; one that is not known here starts replicas anew."""
    return _EFFECTS.get(option, Effect.RESTART)


def changed_options(old: DeploymentOptions, new: DeploymentOptions) -> tuple[str, ...]:
    """Return the options that differ."""
    return tuple(
        field for field in DeploymentOptions.__struct_fields__ if getattr(old, field) != getattr(new, field)
    )


def restart_reasons(
    old_app: ApplicationSpec, new_app: ApplicationSpec, old: DeploymentSpec, new: DeploymentSpec
) -> tuple[str, ...]:
    """Return why the replicas of a deployment are started anew, for people; empty when they are not.

    Options that have this effect are told by the caller, who has words for their values.
    """
    reasons = [*_of_application(old_app, new_app)]
    if old.definition != new.definition:
        reasons.append("its code or its arguments changed")
    if old.children != new.children:
        reasons.append("it is bound to other deployments")
    if old.snapshot != new.snapshot:
        reasons.append("files of its own modules changed")
    was_ingress, is_ingress = old_app.ingress == old.name, new_app.ingress == new.name
    if was_ingress != is_ingress:
        reasons.append(f"requests from outside go to it {'now' if is_ingress else 'no more'}")
    return tuple(reasons)


def _of_application(old: ApplicationSpec, new: ApplicationSpec) -> list[str]:
    reasons = []
    if old.import_path != new.import_path:
        reasons.append(f"import_path {old.import_path!r} -> {new.import_path!r}")
    if old.code.digest != new.code.digest:
        reasons.append("files of the code changed")
    if old.code.env_vars != new.code.env_vars:
        reasons.append("env_vars of the application changed")
    if old.code.packages != new.code.packages:
        reasons.append(package_difference(old.code.packages, new.code.packages))
    if old.code.working_dir != new.code.working_dir:
        reasons.append(f"working_dir {old.code.working_dir!r} -> {new.code.working_dir!r}")
    if old.code.sys_path != new.code.sys_path:
        reasons.append("the folders that modules are looked for in changed")
    return reasons


def package_difference(old: PackageEnvironment | None, new: PackageEnvironment | None) -> str:
    """Return how the packages differ, without passwords."""
    before, after = (set(e.requirements) if e is not None else set() for e in (old, new))
    # Options of pip, and addresses, may hold the password of an index.
    told = [f"-{line}" for line in sorted(before - after) if not line.startswith("-")]
    told += [f"+{line}" for line in sorted(after - before) if not line.startswith("-")]
    return f"packages changed ({_PASSWORD.sub('//***@', ', '.join(told))})" if told else "packages changed"
