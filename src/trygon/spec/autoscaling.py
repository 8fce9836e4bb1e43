"""Options of autoscaling."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Self

from trygon.spec.validation import (
    Check,
    OptionError,
    Options,
    enum_member,
    integer,
    mapping,
    number,
    option,
    optional,
    options_of,
)

__all__ = [
    "ADAPTIVE_POLICY",
    "BUILT_IN_POLICIES",
    "DEFAULT_POLICY",
    "AdaptivePolicy",
    "AggregationFunction",
    "AutoscalingConfig",
    "AutoscalingPolicy",
]

#: Import path of the policy that is used when none is given.
DEFAULT_POLICY = "trygon.serve.autoscaling_policy:default_autoscaling_policy"
#: Import path of the policy that ``policy="adaptive"`` stands for; its keyword arguments are AdaptivePolicy's.
ADAPTIVE_POLICY = "trygon.serve.autoscaling_policy:AdaptivePolicy"
#: Those that `scaling.decide` computes itself: no user code is called for them.
BUILT_IN_POLICIES = frozenset({DEFAULT_POLICY, ADAPTIVE_POLICY})

_DELAY = number()
_POSITIVE = number(0, above=True)


class AggregationFunction(StrEnum):
    """How the numbers of the look-back window become one."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"


def _policy_function(value: Any) -> Any:
    if callable(value) or (isinstance(value, str) and value):
        return value
    raise ValueError


class AutoscalingPolicy(Options, refuse_unknown=False):
    """A function or class that decides how many replicas there are, and its keyword arguments."""

    policy_function: str | Callable[..., Any] = option(
        default=DEFAULT_POLICY, check=Check("a function, a class, or 'module:name'", _policy_function)
    )
    policy_kwargs: dict[str, Any] = option(default={}, check=mapping)

    def _check(self) -> None:
        if self.policy_function == ADAPTIVE_POLICY:
            AdaptivePolicy(**self.policy_kwargs)

    @classmethod
    def parse(cls, value: object) -> Self:
        """Also take "adaptive", or an AdaptivePolicy, for the adaptive policy."""
        if value == "adaptive":
            return cls(policy_function=ADAPTIVE_POLICY)
        if isinstance(value, AdaptivePolicy):
            return cls(policy_function=ADAPTIVE_POLICY, policy_kwargs=value.given())
        if isinstance(value, str):
            raise OptionError(
                f"wanted 'adaptive', an AdaptivePolicy, or an AutoscalingPolicy, found {value!r}; "
                'give an import path as AutoscalingPolicy(policy_function="module:name")'
            )
        return super().parse(value)

    @property
    def adaptive(self) -> AdaptivePolicy | None:
        """The options of the adaptive policy, if this is it."""
        return AdaptivePolicy(**self.policy_kwargs) if self.policy_function == ADAPTIVE_POLICY else None


class AdaptivePolicy(Options):
    """Keep the share of requests that wait too long below a bound, with as few replicas as that takes.

    The number of replicas covers a high percentile of the recent demand, and never less than the demand now.
    The percentile is raised and lowered until the share of late requests meets the objective. Here
    `target_ongoing_requests` says how many requests one replica works on at once.

    Durations are in seconds.
    """

    #: The objective: this share of requests waits no longer than `wait_s`.
    wait_s: float = option(default=1.0, check=_POSITIVE)
    quantile: float = option(default=0.99, check=number(0.5, 0.9999))
    #: After this long, past demand counts half.
    half_life_s: float = option(default=600.0, check=_POSITIVE)
    #: Spare room above the percentile, as a factor.
    margin: float = option(default=1.0, check=number(1.0))
    #: Replicas are given up only when they were not needed for this long, and for as long as one takes to start.
    hold_s: float = option(default=60.0, check=_DELAY)
    #: Demand that rises is taken to go on until a replica is ready, but to at most this many times what it is.
    max_rise: float = option(default=2.0, check=number(1.0))
    #: Length of the season, such as 86400; None looks for no season. It is believed after two whole ones.
    season_s: float | None = option(default=None, check=optional(_POSITIVE))


class AutoscalingConfig(Options, refuse_unknown=False):
    """How the number of replicas follows the load. Delays and periods are in seconds."""

    min_replicas: int = option(default=1, check=integer(0))
    initial_replicas: int | None = option(default=None, check=optional(integer(0)))
    max_replicas: int = option(default=1, check=integer(1))
    target_ongoing_requests: float | None = option(default=2.0, check=optional(_POSITIVE))
    metrics_interval_s: float = option(default=10.0, check=_POSITIVE)
    look_back_period_s: float = option(default=30.0, check=_POSITIVE)
    smoothing_factor: float = option(default=1.0, check=_POSITIVE)
    upscale_smoothing_factor: float | None = option(default=None, check=optional(_POSITIVE))
    downscale_smoothing_factor: float | None = option(default=None, check=optional(_POSITIVE))
    upscaling_factor: float | None = option(default=None, check=optional(_POSITIVE))
    downscaling_factor: float | None = option(default=None, check=optional(_POSITIVE))
    downscale_delay_s: float = option(default=600.0, check=_DELAY)
    downscale_to_zero_delay_s: float | None = option(default=None, check=optional(_DELAY))
    upscale_delay_s: float = option(default=30.0, check=_DELAY)
    aggregation_function: AggregationFunction = option(
        default=AggregationFunction.MEAN, check=enum_member(AggregationFunction)
    )
    policy: AutoscalingPolicy = option(default=AutoscalingPolicy(), check=options_of(AutoscalingPolicy))

    def _check(self) -> None:
        low, high, first = self.min_replicas, self.max_replicas, self.initial_replicas
        if high < low:
            raise OptionError(
                f"AutoscalingConfig: min_replicas is {low} and max_replicas is {high}; "
                f"set max_replicas to {low} or more"
            )
        if first is not None and not low <= first <= high:
            raise OptionError(
                f"AutoscalingConfig: initial_replicas is {first}, but it must lie between "
                f"min_replicas ({low}) and max_replicas ({high})"
            )

    @classmethod
    def auto(cls, overrides: AutoscalingConfig | dict[str, Any] | None = None) -> AutoscalingConfig:
        """Return what ``num_replicas="auto"`` stands for, with the options that were given on top."""
        fields: dict[str, Any] = {"min_replicas": 1, "max_replicas": 100, "target_ongoing_requests": 2}
        if isinstance(overrides, AutoscalingConfig):
            overrides = overrides.given()
        return cls(**{**fields, **(overrides or {})})

    @property
    def starting_replicas(self) -> int:
        """Replicas of a first deploy."""
        return self.min_replicas if self.initial_replicas is None else self.initial_replicas

    def get_upscaling_factor(self) -> float:
        """Return the gain when there are too few replicas."""
        return self.upscaling_factor or self.upscale_smoothing_factor or self.smoothing_factor

    def get_downscaling_factor(self) -> float:
        """Return the gain when there are too many replicas."""
        return self.downscaling_factor or self.downscale_smoothing_factor or self.smoothing_factor

    def get_target_ongoing_requests(self) -> float | None:
        """Return the number of running and queued requests wanted for each replica."""
        return self.target_ongoing_requests
