"""The options of ``@serve.deployment``: one table of names and checks, and what they become.

What Trygon cannot do yet is refused where ignoring it would change results,
and warned about once where it only tunes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from trygon.graph.resources import check_actor_options, check_placement, read_actor_options
from trygon.graph.retired import RETIRED_OPTIONS
from trygon.spec.application import DeploymentOptions
from trygon.spec.autoscaling import AutoscalingConfig
from trygon.spec.logging_options import LoggingConfig
from trygon.spec.options import (
    BackpressureConfig,
    DeploymentActorConfig,
    GangSchedulingConfig,
    RequestQueueConfig,
    RequestRouterConfig,
)
from trygon.spec.validation import (
    Check,
    OptionError,
    check_value,
    integer,
    json_value,
    list_of,
    near_names,
    number,
    optional,
    options_of,
)

__all__ = [
    "AUTO",
    "MAX_AUTO_ONGOING",
    "DeploymentArguments",
    "announce_inert",
    "check_option",
    "checked_options",
    "option_names",
    "specification",
]


class DeploymentArguments(TypedDict, total=False):
    """Keyword arguments of ``@serve.deployment`` and ``Deployment.options``, in Ray Serve's order."""

    name: str | None
    version: str
    num_replicas: int | str | None
    ray_actor_options: dict[str, Any] | None
    placement_group_bundles: list[dict[str, float]] | None
    placement_group_strategy: str | None
    placement_group_bundle_label_selector: list[dict[str, str]] | None
    max_replicas_per_node: int | None
    user_config: Any
    max_ongoing_requests: int | str
    max_queued_requests: int
    backpressure_config: dict[str, Any] | BackpressureConfig | None
    autoscaling_config: dict[str, Any] | AutoscalingConfig | None
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float
    health_check_period_s: float
    health_check_timeout_s: float
    logging_config: dict[str, Any] | LoggingConfig | None
    request_router_config: dict[str, Any] | RequestRouterConfig | None
    max_constructor_retry_count: int
    gang_scheduling_config: dict[str, Any] | GangSchedulingConfig | None
    deployment_actors: list[dict[str, Any] | DeploymentActorConfig] | None
    rolling_update_percentage: float
    max_surge_percent: int
    request_queue_config: dict[str, Any] | RequestQueueConfig | None


def option_names() -> tuple[str, ...]:
    """Return the names that the decorator takes, in Ray Serve's order."""
    return tuple(DeploymentArguments.__annotations__)


#: Of `max_ongoing_requests`: each replica learns how many it should work on.
AUTO = "auto"
#: Most requests that such a replica works on at a time; a replica that runs synchronous code has as many threads.
MAX_AUTO_ONGOING = 256

_CHECKS = {
    "num_replicas": Check("an integer of 1 or more, 'auto', or None", integer(1).convert),
    "ray_actor_options": Check("a dict or None", check_actor_options),
    "max_replicas_per_node": optional(integer(1, 100)),
    "user_config": json_value,
    "max_ongoing_requests": Check(
        "an integer of 1 or more, or 'auto'",
        lambda value: value if isinstance(value, str) and value == AUTO else integer(1).convert(value),
    ),
    "max_queued_requests": Check("an integer of 1 or more, or -1 for no limit", integer(1, also=-1).convert),
    "backpressure_config": options_of(BackpressureConfig),
    "autoscaling_config": optional(options_of(AutoscalingConfig)),
    "graceful_shutdown_wait_loop_s": number(),
    "graceful_shutdown_timeout_s": number(),
    "health_check_period_s": number(0, above=True),
    "health_check_timeout_s": number(0, above=True),
    "logging_config": optional(options_of(LoggingConfig)),
    "request_router_config": options_of(RequestRouterConfig),
    "max_constructor_retry_count": integer(1),
    "gang_scheduling_config": optional(options_of(GangSchedulingConfig)),
    "deployment_actors": optional(list_of(options_of(DeploymentActorConfig))),
    "rolling_update_percentage": number(0, 1, above=True),
    "max_surge_percent": integer(0, 100),
    "request_queue_config": options_of(RequestQueueConfig),
}
_PLACEMENT = ("placement_group_bundles", "placement_group_strategy", "placement_group_bundle_label_selector")
#: None means the default here, as in Ray Serve.
_NONE_IS_DEFAULT = frozenset(
    {"num_replicas", "backpressure_config", "request_router_config", "request_queue_config", *_PLACEMENT}
)


def check_option(name: str, value: object) -> None:
    """Check one option without looking at the others; None is "not given" where it stands for the default.

    Raises:
        OptionError: The value cannot be, or the option is no more.
        TypeError: There is no such option.
    """
    _refuse_unknown({name: value}, "")
    if name in _PLACEMENT or (value is None and name in _NONE_IS_DEFAULT):
        return
    if name == "num_replicas" and value == "auto":
        return
    check_value("", name, value, _CHECKS[name])


def checked_options(
    given: Mapping[str, Any], before: Mapping[str, Any], *, owner: str, is_function: bool
) -> dict[str, Any]:
    """Return the options of a deployment after `given` is laid over `before`.

    Args:
        given: Options as the user wrote them, without the name.
        before: What an earlier call of this function returned.
        owner: The deployment, for error texts.
        is_function: Functions take no ``user_config``.

    Raises:
        OptionError: A value that cannot be, two that exclude each other, or one that Trygon cannot do.
        TypeError: An unknown name.
    """
    _refuse_unknown(given, owner)
    changes = _with_autoscaling(given)
    options = dict(before)
    for name, value in changes.items():
        if value is None and name in _NONE_IS_DEFAULT:
            continue
        options[name] = value if name in _PLACEMENT else check_value(owner, name, value, _CHECKS[name])
    _check_together(options, owner, is_function=is_function)
    return options


def _refuse_unknown(given: Mapping[str, Any], owner: str) -> None:
    owner = f"{owner}: " if owner else ""
    for name in given:
        if name in RETIRED_OPTIONS:
            raise OptionError(f"{owner}the option {name!r} was removed; {RETIRED_OPTIONS[name]}")
        if name not in _CHECKS and name not in _PLACEMENT:
            known = list(option_names())
            raise TypeError(
                f"{owner}there is no option {name!r}{near_names(name, known)}; "
                f"the options are {', '.join(known)}"
            )


def _with_autoscaling(given: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``num_replicas="auto"`` into an autoscaling configuration."""
    changes = dict(given)
    count, scaling = changes.get("num_replicas"), changes.get("autoscaling_config")
    if isinstance(count, str) and count == "auto":
        del changes["num_replicas"]
        if not (scaling is None or isinstance(scaling, AutoscalingConfig | dict)):
            AutoscalingConfig.parse(scaling)
        changes["autoscaling_config"] = AutoscalingConfig.auto(scaling)
    elif count is not None and scaling is not None:
        raise OptionError(
            f"num_replicas={count!r} is given together with autoscaling_config; "
            "remove one of them, or write num_replicas='auto'"
        )
    return changes


def _check_together(options: dict[str, Any], owner: str, *, is_function: bool) -> None:
    if is_function and options.get("user_config") is not None:
        raise OptionError(
            f"{owner} is a function and has no reconfigure method; remove user_config or use a class"
        )
    actor_options = options.setdefault("ray_actor_options", check_actor_options(None))
    options.update(check_placement(options, actor_options))
    per_host = options.get("max_replicas_per_node")
    for name in ("placement_group_bundles", "gang_scheduling_config"):
        if per_host is not None and options.get(name) is not None:
            raise OptionError(f"{owner}: max_replicas_per_node cannot go with {name}; remove one of them")
    _refuse_missing_machinery(options, owner)


def _refuse_missing_machinery(options: Mapping[str, Any], owner: str) -> None:
    gang: GangSchedulingConfig | None = options.get("gang_scheduling_config")
    count = options.get("num_replicas", 1)
    if gang is not None and count % gang.gang_size:
        raise OptionError(
            f"{owner}: num_replicas is {count} and gang_size is {gang.gang_size}; "
            f"make num_replicas a multiple of gang_size"
        )
    if gang is not None and gang.gang_size > 1:
        raise OptionError(
            f"{owner}: gangs of more than one replica cannot be started yet; remove gang_scheduling_config"
        )
    if options.get("deployment_actors"):
        raise OptionError(
            f"{owner}: deployment_actors cannot be started yet; make the shared part a deployment of its own, "
            "bind it into this one, and call it through its handle"
        )


def specification(options: Mapping[str, Any]) -> DeploymentOptions:
    """Turn what `checked_options` returned into the values that everyone else reads."""
    actor = read_actor_options(options["ray_actor_options"])
    backpressure: BackpressureConfig = options.get("backpressure_config") or BackpressureConfig()
    queue: RequestQueueConfig = options.get("request_queue_config") or RequestQueueConfig()
    router: RequestRouterConfig = options.get("request_router_config") or RequestRouterConfig()
    scaling: AutoscalingConfig | None = options.get("autoscaling_config")
    log: LoggingConfig | None = options.get("logging_config")
    same_name = {name: options[name] for name in _SAME_NAME if name in options}
    if same_name.get("max_ongoing_requests") == AUTO:
        same_name.update(max_ongoing_requests=MAX_AUTO_ONGOING, tunes_ongoing_requests=True)
    return DeploymentOptions(
        **same_name,
        num_replicas=_replicas(options.get("num_replicas", 1), scaling),
        backpressure_status_code=backpressure.status_code,
        backpressure_retry_after_s=backpressure.retry_after_s,
        queue=queue.policy(),
        router=router.rule(),
        resources=actor.resources,
        env_vars=actor.env_vars,
        working_dir=actor.working_dir,
        py_modules=actor.py_modules,
        packages=actor.packages,
        autoscaling=None if scaling is None else scaling.to_builtins(),
        logging=None if log is None else log.to_builtins(),
        inert={
            **{name: _plain(options[name]) for name in _INERT if options.get(name)},
            **({"request_router_config": _plain(router)} if _only_tunes(router) else {}),
            **actor.selectors,
        },
    )


#: Options that keep their name and value in the specification.
_SAME_NAME = (
    "user_config",
    "max_ongoing_requests",
    "max_queued_requests",
    "health_check_period_s",
    "health_check_timeout_s",
    "graceful_shutdown_timeout_s",
    "graceful_shutdown_wait_loop_s",
    "max_constructor_retry_count",
    "max_surge_percent",
    "rolling_update_percentage",
)


def _only_tunes(router: RequestRouterConfig) -> bool:
    """Whether it changes numbers of the default router, which needs none."""
    return router.is_default_router and bool(router.given().keys() - {"request_router_class"})


#: Options that only tune, and what happens instead.
_INERT = {
    "max_replicas_per_node": "all replicas run on this machine",
    "gang_scheduling_config": "a gang of one replica is a replica",
    "placement_group_bundles": "all replicas run on this machine",
    "placement_group_strategy": "all replicas run on this machine",
    "placement_group_bundle_label_selector": "all replicas run on this machine",
    "label_selector": "all replicas run on this machine",
    "fallback_strategy": "all replicas run on this machine",
}


_NO_BACKOFF = "requests are balanced by power of two choices on exact counts, without probes"


def _plain(value: Any) -> Any:
    return value.to_builtins() if hasattr(value, "to_builtins") else value


def _replicas(count: int, scaling: AutoscalingConfig | None) -> int:
    return count if scaling is None else scaling.starting_replicas


def announce_inert(options: DeploymentOptions, warn: Any) -> None:
    """Call ``warn(key, text)`` for each option that is kept but changes nothing yet."""
    for name in options.inert:
        warn(f"option.{name}", f"the option {name} changes nothing yet: {_INERT.get(name, _NO_BACKOFF)}")
    if options.rolling_update_percentage != DeploymentOptions().rolling_update_percentage:
        warn(
            "option.rolling_update_percentage",
            "the option rolling_update_percentage changes nothing yet: new replicas are started before old ones drain",
        )
