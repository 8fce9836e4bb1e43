"""Writes the options of a deployment as a configuration file says them: the way back from the specification. Pure."""

from __future__ import annotations

from typing import Any

from trygon.graph.options import AUTO
from trygon.spec.application import DeploymentOptions, ResourceRequest
from trygon.spec.packages import PackageEnvironment
from trygon.spec.routers import CONSISTENT_HASH, RouterRule

__all__ = ["plain_options", "plain_pip"]

#: Those that are written under another name, or into a mapping.
_ELSEWHERE = frozenset(
    {
        *("num_replicas", "autoscaling", "logging", "resources", "env_vars", "inert"),
        *("working_dir", "py_modules", "module_path", "packages"),
        *("backpressure_status_code", "backpressure_retry_after_s", "queue", "router"),
        "tunes_ongoing_requests",
    }
)
#: In `inert`, but given with `ray_actor_options`.
_SELECTORS = ("label_selector", "fallback_strategy")
#: Names of amounts in `ray_actor_options`, and in the specification.
_RESOURCES = (
    ("num_cpus", "num_cpus"),
    ("num_gpus", "num_gpus"),
    ("memory", "memory_bytes"),
    ("accelerator_type", "accelerator_type"),
    ("resources", "resources"),
)
#: Keyword arguments of consistent hashing.
_RING = ("num_virtual_nodes", "num_fallback_replicas")
#: Names in `request_router_config`, and in the specification.
_ROUTING = (
    ("request_routing_stats_period_s", "stats_period_s"),
    ("request_routing_stats_timeout_s", "stats_timeout_s"),
    ("initial_backoff_s", "initial_backoff_s"),
    ("backoff_multiplier", "backoff_multiplier"),
    ("max_backoff_s", "max_backoff_s"),
)


def plain_options(options: DeploymentOptions) -> dict[str, Any]:
    """Return every option that is not at its default."""
    plain: dict[str, Any] = {}
    default = DeploymentOptions()
    if options.autoscaling is not None:
        plain["autoscaling_config"] = {k: v for k, v in options.autoscaling.items() if v is not None}
    elif options.num_replicas != default.num_replicas:
        plain["num_replicas"] = options.num_replicas
    for name in DeploymentOptions.__struct_fields__:
        if name not in _ELSEWHERE and getattr(options, name) != getattr(default, name):
            plain[name] = getattr(options, name)
    if options.tunes_ongoing_requests:
        plain["max_ongoing_requests"] = AUTO
    backpressure: dict[str, Any] = {}
    if options.backpressure_status_code != default.backpressure_status_code:
        backpressure["status_code"] = options.backpressure_status_code
    if options.backpressure_retry_after_s is not None:
        backpressure["retry_after_s"] = options.backpressure_retry_after_s
    actor = _actor_options(options)
    queue = {
        name: getattr(options.queue, name)
        for name in options.queue.__struct_fields__
        if getattr(options.queue, name) != getattr(default.queue, name)
    }
    grouped = {
        "backpressure_config": backpressure,
        "request_queue_config": queue,
        "request_router_config": _router_options(options.router),
        "ray_actor_options": actor,
    }
    plain.update({name: value for name, value in grouped.items() if value})
    if options.logging is not None:
        plain["logging_config"] = {k: v for k, v in options.logging.items() if v is not None}
    return {**plain, **{k: v for k, v in options.inert.items() if k not in _SELECTORS}}


def _router_options(rule: RouterRule) -> dict[str, Any]:
    default = RouterRule()
    if rule == default:
        return {}
    kwargs = dict(rule.kwargs)
    if rule.name == CONSISTENT_HASH:
        kwargs = {
            name: getattr(rule, name) for name in _RING if getattr(rule, name) != getattr(default, name)
        }
    plain: dict[str, Any] = {"request_router_class": rule.router_class or rule.name}
    if kwargs:
        plain["request_router_kwargs"] = kwargs
    for name, field in _ROUTING:
        if getattr(rule, field) != getattr(default, field):
            plain[name] = getattr(rule, field)
    return plain


def plain_pip(packages: PackageEnvironment) -> list[str] | str | dict[str, Any]:
    """Return packages as `pip` of a runtime_env says them."""
    requirements = packages.file if packages.file is not None else list(packages.requirements)
    given: dict[str, Any] = {"pip_check": packages.pip_check, "pip_version": packages.pip_version}
    given["pip_install_options"] = list(packages.pip_install_options)
    given = {name: value for name, value in given.items() if value}
    return {"packages": requirements, **given} if given else requirements


def _actor_options(options: DeploymentOptions) -> dict[str, Any]:
    wanted, default = options.resources, ResourceRequest()
    actor: dict[str, Any] = {
        name: getattr(wanted, field)
        for name, field in _RESOURCES
        if getattr(wanted, field) != getattr(default, field)
    }
    env: dict[str, Any] = {}
    if options.env_vars:
        env["env_vars"] = options.env_vars
    if options.working_dir is not None:
        env["working_dir"] = options.working_dir
    if options.py_modules:
        env["py_modules"] = list(options.py_modules)
    if options.packages is not None:
        env["pip"] = plain_pip(options.packages)
    if env:
        actor["runtime_env"] = env
    actor.update({name: options.inert[name] for name in _SELECTORS if name in options.inert})
    return actor
