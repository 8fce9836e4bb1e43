"""Options of a deployment that are objects of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from trygon.spec.queueing import QueuePolicy
from trygon.spec.routers import CONSISTENT_HASH, CUSTOM, POWER_OF_TWO, RouterRule, rule_of
from trygon.spec.validation import (
    Check,
    OptionError,
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
    "RequestQueueConfig",
    "RequestRouterConfig",
]

#: Import path that stands for power of two choices on exact counts.
DEFAULT_ROUTER = "trygon.serve.request_router:PowerOfTwoChoicesRequestRouter"
_DEFAULT_ROUTER_CLASS = DEFAULT_ROUTER.rsplit(":", 1)[1]


class BackpressureConfig(Options):
    """How the ingress answers a request that a full queue refused."""

    status_code: int = option(default=503, check=one_of(503, 429))
    retry_after_s: float | None = option(default=None, check=optional(number()))


def _source(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    kind, _, name = value.partition(":")
    if value == "client" or (kind == "header" and _HEADER_NAME(name)):
        return value.lower()
    raise ValueError


def _header(value: Any) -> str:
    if value == "client":
        raise ValueError
    return _source(value)


def _levels(value: Any) -> dict[str, int]:
    levels = mapping.convert(value)
    if len(levels) > MAX_PRIORITIES or not all(isinstance(name, str) and name for name in levels):
        raise ValueError
    return {name.lower(): _LEVEL.convert(level) for name, level in levels.items()}


_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}").fullmatch
_LEVEL = integer(-1000, 1000)
#: Each is a queue of its own.
MAX_PRIORITIES = 32


class RequestQueueConfig(Options):
    """How long requests from outside may wait for a replica, and in which order; not in Ray Serve.

    ``max_wait_s`` is in seconds: as many requests wait as are answered in it at the measured rate. None is 1 s, or no
    such bound where ``max_queued_requests`` is set; -1 is no such bound.
    ``fairness_key`` names what tells tenants apart, ``"header:x-tenant"`` or ``"client"`` (the address): they take turns.
    ``priority`` names the header that says how important a request is, ``priorities`` what it may say and what that
    is worth; anything else is worth 0, and greater goes first.
    """

    max_wait_s: float | None = option(
        default=None,
        check=optional(
            Check(
                "a number above 0, or -1 for no bound",
                lambda value: -1.0 if value == -1 else number(0, above=True).convert(value),
            )
        ),
    )
    fairness_key: str | None = option(
        default=None, check=optional(Check("'header:NAME' or 'client'", _source))
    )
    priority: str | None = option(default=None, check=optional(Check("'header:NAME'", _header)))
    priorities: dict[str, int] = option(
        default={"low": -1, "normal": 0, "high": 1},
        check=Check(f"a dict of up to {MAX_PRIORITIES} names to integers of -1000 to 1000", _levels),
    )

    def policy(self) -> QueuePolicy:
        """Return it as the callers get it."""
        return QueuePolicy(
            max_wait_s=self.max_wait_s,
            fairness_key=self.fairness_key or "",
            priority=self.priority or "",
            priorities=self.priorities if self.priority else {},
        )


def _class_or_path(value: Any) -> Any:
    if callable(value) or (isinstance(value, str) and value):
        return value
    raise ValueError


def _json_mapping(value: Any) -> dict[str, Any]:
    checked: dict[str, Any] = json_value.convert(mapping.convert(value))
    return checked


_POSITIVE = number(0, above=True)


class RequestRouterConfig(Options, refuse_unknown=False):
    """Which rule picks a replica, and how often and how long it tries. Times are in seconds.

    ``request_router_class`` is a short name (``"power_of_two"``, ``"round_robin"``, ``"least_loaded"``,
    ``"locality"``, ``"consistent_hash"``), the import path of such a rule here or in Ray Serve, or a subclass of
    `trygon.serve.request_router.RequestRouter` and its import path. ``request_router_kwargs`` go to the
    ``initialize_state`` of a class, or are ``num_virtual_nodes`` and ``num_fallback_replicas`` of consistent hashing.
    """

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

    def _check(self) -> None:
        name = self.class_name
        if name.replace(":", ".").rsplit(".", 1)[-1] == "CapacityQueueRouter":
            raise OptionError(
                f"RequestRouterConfig: the router {name!r} needs an actor of Ray's; use 'least_loaded', which knows "
                "what every replica has in work"
            )
        if (
            not callable(self.request_router_class)
            and rule_of(name) is None
            and ":" not in name
            and "." not in name
        ):
            raise OptionError(
                "RequestRouterConfig: request_router_class is 'power_of_two', 'round_robin', 'least_loaded', "
                f"'locality', 'consistent_hash', a router class, or 'module:name', found {name!r}"
            )
        if rule_of(name) == CONSISTENT_HASH:
            _HashOptions(**self.request_router_kwargs)

    @property
    def class_name(self) -> str:
        """The import path of the class, or the name that was given."""
        router = self.request_router_class
        if isinstance(router, str):
            return router
        return f"{getattr(router, '__module__', '')}:{getattr(router, '__qualname__', type(router).__name__)}"

    @property
    def is_default_router(self) -> bool:
        """Whether power of two choices is asked for, by any of its names."""
        return self.rule().name == POWER_OF_TWO

    def rule(self) -> RouterRule:
        """Return it as the callers get it."""
        found = rule_of(self.class_name)
        if found is None and self.class_name.replace(":", ".").rsplit(".", 1)[-1] == _DEFAULT_ROUTER_CLASS:
            found = POWER_OF_TWO
        backoff: dict[str, Any] = {
            "initial_backoff_s": self.initial_backoff_s,
            "backoff_multiplier": self.backoff_multiplier,
            "max_backoff_s": self.max_backoff_s,
        }
        if found == POWER_OF_TWO:
            return RouterRule()
        if found is not None:
            ring = self.request_router_kwargs if found == CONSISTENT_HASH else {}
            return RouterRule(name=found, **ring, **backoff)
        return RouterRule(
            name=CUSTOM,
            router_class=self.class_name,
            kwargs=self.request_router_kwargs,
            stats_period_s=self.request_routing_stats_period_s,
            stats_timeout_s=self.request_routing_stats_timeout_s,
            **backoff,
        )


class _HashOptions(Options):
    """Keyword arguments of consistent hashing."""

    num_virtual_nodes: int = option(default=100, check=integer(1, 10_000))
    num_fallback_replicas: int = option(default=2, check=integer(0, 100))


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
