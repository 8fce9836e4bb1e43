"""Options of a deployment that are objects of their own."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from trygon.spec.validation import (
    Check,
    Options,
    enum_member,
    integer,
    json_value,
    mapping,
    number,
    one_of,
    option,
    optional,
    string,
)

__all__ = [
    "DEFAULT_ROUTER",
    "BackpressureConfig",
    "DeploymentActorConfig",
    "GangPlacementStrategy",
    "GangRuntimeFailurePolicy",
    "GangSchedulingConfig",
    "RequestRouterConfig",
]

#: Import path that stands for power of two choices on exact counts.
DEFAULT_ROUTER = "trygon.serve.request_router:PowerOfTwoChoicesRequestRouter"
_DEFAULT_ROUTER_CLASS = DEFAULT_ROUTER.rsplit(":", 1)[1]


class BackpressureConfig(Options):
    """How the ingress answers a request that a full queue refused."""

    status_code: int = option(default=503, check=one_of(503, 429))
    retry_after_s: float | None = option(default=None, check=optional(number()))


def _class_or_path(value: Any) -> Any:
    if callable(value) or (isinstance(value, str) and value):
        return value
    raise ValueError


def _json_mapping(value: Any) -> dict[str, Any]:
    checked: dict[str, Any] = json_value.convert(mapping.convert(value))
    return checked


_POSITIVE = number(0, above=True)


class RequestRouterConfig(Options, refuse_unknown=False):
    """Which rule picks a replica, and how often and how long it tries. Times are in seconds."""

    request_router_class: str | Callable[..., Any] = option(
        default=DEFAULT_ROUTER, check=Check("a router class or 'module:name'", _class_or_path)
    )
    request_router_kwargs: dict[str, Any] = option(
        default={}, check=Check("a dict of JSON values", _json_mapping)
    )
    request_routing_stats_period_s: float = option(default=10.0, check=_POSITIVE)
    request_routing_stats_timeout_s: float = option(default=30.0, check=_POSITIVE)
    initial_backoff_s: float = option(default=0.025, check=_POSITIVE)
    backoff_multiplier: float = option(default=2.0, check=_POSITIVE)
    max_backoff_s: float = option(default=0.5, check=_POSITIVE)

    @property
    def is_default_router(self) -> bool:
        """Whether the built-in rule is asked for, by our path or by Ray Serve's."""
        router = self.request_router_class
        return (
            isinstance(router, str) and router.replace(":", ".").rsplit(".", 1)[-1] == _DEFAULT_ROUTER_CLASS
        )


class GangPlacementStrategy(StrEnum):
    """Whether the replicas of a gang share a host."""

    PACK = "PACK"
    SPREAD = "SPREAD"


class GangRuntimeFailurePolicy(StrEnum):
    """What is restarted when a replica of a gang fails."""

    RESTART_GANG = "RESTART_GANG"
    RESTART_REPLICA = "RESTART_REPLICA"


class GangSchedulingConfig(Options, refuse_unknown=False):
    """Replicas that start and stop together."""

    gang_size: int = option(check=integer(1))
    gang_placement_strategy: GangPlacementStrategy = option(
        default=GangPlacementStrategy.PACK, check=enum_member(GangPlacementStrategy)
    )
    runtime_failure_policy: GangRuntimeFailurePolicy = option(
        default=GangRuntimeFailurePolicy.RESTART_GANG, check=enum_member(GangRuntimeFailurePolicy)
    )

    def _check(self) -> None:
        if self.runtime_failure_policy is GangRuntimeFailurePolicy.RESTART_REPLICA:
            raise NotImplementedError(
                "GangSchedulingConfig: runtime_failure_policy 'RESTART_REPLICA' does not exist yet; "
                "use 'RESTART_GANG'"
            )


class DeploymentActorConfig(Options, refuse_unknown=False):
    """A helper process that the replicas of a deployment share."""

    name: str = option(check=string)
    actor_class: type | str = option(check=Check("a class or 'module:name'", _class_or_path))
    init_args: tuple[Any, ...] = option(default=(), check=Check("a tuple", tuple))
    init_kwargs: dict[str, Any] = option(default={}, check=mapping)
    actor_options: dict[str, Any] = option(default={}, check=mapping)
