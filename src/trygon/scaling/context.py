"""What a decision on the number of replicas looks at: samples of the load, and the context a policy is given."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from trygon.spec.autoscaling import AggregationFunction, AutoscalingConfig

__all__ = ["AutoscalingContext", "DeploymentID", "LoadSample", "LoadWindow", "TimeStampedValue"]


class LoadSample(msgspec.Struct, frozen=True, kw_only=True):
    """What all callers of a deployment had together at one moment."""

    #: Monotonic seconds.
    at: float
    #: Requests that waited, and that were in work.
    queued: float = 0.0
    running: float = 0.0
    #: Requests that came and that ended since the sample before.
    arrivals: int = 0
    completions: int = 0
    #: Ready replicas.
    replicas: int = 0

    @property
    def total(self) -> float:
        """All requests that there were."""
        return self.queued + self.running


class LoadWindow(msgspec.Struct, frozen=True):
    """The samples of the last while, oldest first; each holds until the next."""

    samples: tuple[LoadSample, ...] = ()

    def after(self, sample: LoadSample, keep_s: float) -> LoadWindow:
        """Return the window with one more sample, without those that ended before the last `keep_s` seconds."""
        kept = [*self.samples, sample]
        begin = sample.at - keep_s
        first = next((i for i, nxt in enumerate(kept[1:]) if nxt.at > begin), len(kept) - 1)
        return LoadWindow(tuple(kept[first:]))

    def total(self, now: float, look_back_s: float, function: AggregationFunction) -> float:
        """Return the requests of the last while, waiting and in work, as one number."""
        values = list(self._weighted(now, look_back_s))
        if not values:
            return 0.0
        if function is AggregationFunction.MAX:
            return max(value for value, _ in values)
        if function is AggregationFunction.MIN:
            return min(value for value, _ in values)
        whole = sum(weight for _, weight in values)
        if not whole:
            return values[-1][0]
        return math.fsum(value * weight for value, weight in values) / whole

    def _weighted(self, now: float, look_back_s: float) -> Iterable[tuple[float, float]]:
        """Yield each total and for how long it stood: a sample speaks of the time before it."""
        begin = now - look_back_s
        before: float | None = None
        for sample in self.samples:
            if sample.at > begin:
                since = begin if before is None else max(before, begin)
                yield sample.total, 0.0 if before is None and len(self.samples) > 1 else sample.at - since
            before = sample.at

    def rate(self, field: str, now: float, look_back_s: float) -> float:
        """Return the `arrivals` or `completions` a second of the last while."""
        samples = [sample for sample in self.samples if sample.at > now - look_back_s]
        if len(samples) < 2:
            return 0.0
        # What the first one counts came before it.
        count = sum(getattr(sample, field) for sample in samples[1:])
        span_s = samples[-1].at - samples[0].at
        return float(count) / span_s if span_s > 0 else 0.0


class DeploymentID(msgspec.Struct, frozen=True, order=True):
    """A deployment's name, and its application's."""

    name: str
    app_name: str = "default"


class TimeStampedValue(msgspec.Struct, frozen=True):
    """A number of a replica's own, and when it was told."""

    #: Seconds since the epoch.
    timestamp: float
    value: float


class AutoscalingContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy decides by. The first fields are Ray Serve's, the others our own.

    Durations are in seconds; the times are those of the wall clock. Every field has a default, so that a policy
    can be tried with the few that it looks at.
    """

    deployment_id: DeploymentID = DeploymentID("")
    deployment_name: str = ""
    app_name: str = "default"
    #: Ready replicas, and the number that was decided last.
    current_num_replicas: int = 1
    target_num_replicas: int = 1
    #: Ids of the ready replicas.
    running_replicas: list[str] = []
    #: As the aggregation function makes them one number over the look-back period.
    total_num_requests: float = 0.0
    total_queued_requests: float = 0.0
    total_running_requests: float = 0.0
    #: What `record_autoscaling_stats` returned, by name, then replica id: over the look-back period as
    #: one number, and one by one, oldest first.
    aggregated_metrics: dict[str, dict[str, float]] = {}
    raw_metrics: dict[str, dict[str, list[TimeStampedValue]]] = {}
    capacity_adjusted_min_replicas: int = 1
    capacity_adjusted_max_replicas: int = 1
    #: What the policy returned last.
    policy_state: dict[str, Any] = {}
    #: None before the first.
    last_scale_up_time: float | None = None
    last_scale_down_time: float | None = None
    current_time: float = 0.0
    config: AutoscalingConfig | None = None
    #: Requests that came and that ended each second, over the look-back period.
    arrival_rate: float = 0.0
    completion_rate: float = 0.0
    #: Mean time that a request waited and that it was in work, by Little's law; None without requests.
    mean_wait_s: float | None = None
    mean_service_s: float | None = None
    #: Requests in work by replica id, now.
    ongoing_by_replica: dict[str, int] = {}
    #: Processors that each replica keeps busy, and bytes of memory that it holds.
    cpu_by_replica: dict[str, float] = {}
    memory_by_replica: dict[str, float] = {}
