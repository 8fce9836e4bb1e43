"""Options in configuration files: checked as the decorator checks them, and laid over an application that is built.

What a file says wins over the code, and the code over the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from trygon.errors import ServeError
from trygon.graph.build import check_application_name, check_route_prefix
from trygon.graph.options import announce_inert, check_option, checked_options, option_names, specification
from trygon.graph.resources import check_actor_options
from trygon.graph.retired import RETIRED_OPTIONS
from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec
from trygon.spec.config_file import DeploymentConfig
from trygon.spec.validation import OptionError, near_names

__all__ = ["CONFIG_CHECKS", "UnknownDeploymentError", "apply_overrides"]

#: What each option of the decorator is called in the specification, where the names differ.
_FIELDS = {
    "num_replicas": ("num_replicas", "autoscaling"),
    "autoscaling_config": ("num_replicas", "autoscaling"),
    "backpressure_config": ("backpressure_status_code", "backpressure_retry_after_s"),
    "max_ongoing_requests": ("max_ongoing_requests", "tunes_ongoing_requests"),
    "request_queue_config": ("queue",),
    "request_router_config": ("router",),
    "ray_actor_options": ("resources", "env_vars", "working_dir", "py_modules", "module_path", "packages"),
    "logging_config": ("logging",),
}


class UnknownDeploymentError(ServeError):
    """A file overrides a deployment that the application does not have.

    Args:
        name: What was asked for.
        names: What there is.
    """

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name, names)
        self.name = name
        self.names = names

    def __str__(self) -> str:
        hint = near_names(self.name, list(self.names)) or f"; it has {', '.join(map(repr, self.names))}"
        return f"the application has no deployment {self.name!r}{hint}"


class _Checks:
    """What `parse_config` asks of the checks of names and options, each of which has its one home."""

    def application_name(self, value: object) -> None:
        check_application_name(value)

    def route_prefix(self, value: object) -> None:
        check_route_prefix(value)

    def runtime_env(self, value: dict[str, Any]) -> None:
        try:
            check_actor_options({"runtime_env": value})
        except OptionError as error:
            raise OptionError(str(error).removeprefix("runtime_env: ")) from None

    def deployment_keys(self) -> tuple[str, ...]:
        return (*(name for name in option_names() if name != "name"), *RETIRED_OPTIONS)

    def deployment_option(self, name: str, value: object) -> None:
        check_option(name, value)

    def deployment_options(self, name: str, options: dict[str, Any]) -> None:
        checked_options(options, {}, owner=f"deployment {name!r}", is_function=False)


CONFIG_CHECKS = _Checks()


def apply_overrides(
    spec: ApplicationSpec, overrides: Iterable[DeploymentConfig], *, warn: Callable[[str, str], object]
) -> ApplicationSpec:
    """Return the application with the options of a file laid over those of its code.

    Args:
        spec: As it was built.
        overrides: Options of its deployments.
        warn: Called with ``(key, text)`` for each option that is accepted and changes nothing yet.

    Raises:
        UnknownDeploymentError: One of them names a deployment that is not there.
        OptionError: Options that cannot go together.
    """
    deployments = {deployment.name: deployment for deployment in spec.deployments}
    for override in overrides:
        if override.name not in deployments:
            raise UnknownDeploymentError(override.name, tuple(deployments))
        deployments[override.name] = _overridden(deployments[override.name], override.options, warn)
    return spec.with_deployments(tuple(deployments.values()))


def _overridden(
    deployment: DeploymentSpec, given: dict[str, Any], warn: Callable[[str, str], object]
) -> DeploymentSpec:
    owner = f"deployment {deployment.name!r}"
    new = specification(checked_options(given, {}, owner=owner, is_function=False))
    announce_inert(new, warn)
    changes: dict[str, Any] = {}
    inert = dict(deployment.options.inert)
    for name in given:
        fields = _FIELDS.get(name, (name,) if name in DeploymentOptions.__struct_fields__ else ())
        changes.update({field: getattr(new, field) for field in fields})
        if (not fields or name == "request_router_config") and name in option_names():
            inert.pop(name, None)
    if "autoscaling" in changes:
        # What a file says has an import path.
        deployment = deployment.without_policy()
    if "router" in changes:
        deployment = deployment.without_router()
    return deployment.with_options(**changes, inert={**inert, **new.inert})
