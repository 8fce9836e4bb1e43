"""Autoscaling policies of one's own: by the time of day, within a budget, and put together from others.

A policy is a function of a context, or a class whose objects are called with one. It returns the number of replicas
and a state, a dict of plain data that comes back in the next context. It runs in a process of its own, about once a
second, and bounds and delays of the configuration are laid over what it says.

Run ``python -m examples.scaling_policies`` and you will see::

    at 03:00: 1 replicas
    at 12:00: 4 replicas
    with a budget for 2: 2 replicas
    the queue asks for 6, the calendar for 4: 6 replicas

To keep it running: ``trygon run examples.scaling_policies:app``, then ``trygon explain default``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trygon import serve
from trygon.serve.autoscaling_policy import default_autoscaling_policy
from trygon.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

Said = tuple[float, dict[str, Any]]


@dataclass
class OfficeHours:
    """Have many replicas while people work, and few at night."""

    day: int
    night: int = 1
    begins: int = 8
    ends: int = 18

    def __call__(self, context: AutoscalingContext) -> Said:
        """Say how many replicas this hour needs."""
        hour = datetime.fromtimestamp(context.current_time, UTC).hour
        return (self.day if self.begins <= hour < self.ends else self.night), context.policy_state


@dataclass
class Budget:
    """Follow the load as far as the money of an hour reaches."""

    per_replica_hour: float
    per_hour: float

    def __call__(self, context: AutoscalingContext) -> Said:
        """Ask the default policy, and buy no more than the budget allows."""
        wanted, _ = default_autoscaling_policy(context)
        affordable = int(self.per_hour / self.per_replica_hour)
        # What was refused, for the next call and for whoever reads the state.
        refused = context.policy_state.get("refused", 0) + max(0, int(wanted) - affordable)
        return min(wanted, affordable), {"refused": refused}


@dataclass
class CalendarAndQueue:
    """Have what the calendar says, and more when the queue needs it."""

    day: int

    def __call__(self, context: AutoscalingContext) -> Said:
        """Take the larger of two opinions."""
        planned, _ = OfficeHours(day=self.day)(context)
        needed, _ = default_autoscaling_policy(context)
        return max(planned, needed), {}


@serve.deployment(
    autoscaling_config=AutoscalingConfig(
        min_replicas=1,
        max_replicas=8,
        upscale_delay_s=1,
        downscale_delay_s=5,
        metrics_interval_s=0.5,
        policy=AutoscalingPolicy(policy_function=CalendarAndQueue, policy_kwargs={"day": 4}),
    )
)
class Converter:
    """Convert a temperature."""

    def __call__(self, celsius: float = 0.0) -> float:
        """Return degrees Fahrenheit."""
        return celsius * 9 / 5 + 32


app = Converter.bind()


def at(hour: int, *, ongoing: float = 0.0) -> AutoscalingContext:
    """Return a context as it might be at an hour of some day: policies can be tried without a server."""
    return AutoscalingContext(
        total_num_requests=ongoing,
        current_time=datetime(2026, 3, 2, hour, tzinfo=UTC).timestamp(),
    )


def main() -> None:
    """Ask each policy what it says."""
    hours = OfficeHours(day=4)
    print(f"at 03:00: {hours(at(3))[0]} replicas")
    print(f"at 12:00: {hours(at(12))[0]} replicas")
    budget = Budget(per_replica_hour=0.5, per_hour=1.0)
    print(f"with a budget for 2: {budget(at(12, ongoing=9))[0]} replicas")
    both = CalendarAndQueue(day=4)
    print(f"the queue asks for 6, the calendar for 4: {both(at(12, ongoing=12))[0]} replicas")


if __name__ == "__main__":
    main()
