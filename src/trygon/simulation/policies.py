"""The policies that are compared: our own as the controller runs them, Knative's rule, and a fleet that stays."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from trygon.errors import ServeError
from trygon.scaling.context import LoadSample, LoadWindow
from trygon.scaling.decision import Bounds, Decision, ScalingState, decide, window_demand
from trygon.simulation.fleet import Outcome, Policy, Setup, run
from trygon.simulation.trace import Trace
from trygon.spec.autoscaling import AdaptivePolicy, AutoscalingConfig, AutoscalingPolicy

__all__ = ["NAMES", "DecidedPolicy", "KnativePolicy", "StaticPolicy", "best_static", "make_policy"]

#: Those that can be asked for.
NAMES = ("adaptive", "ray", "knative", "static")


class DecidedPolicy:
    """A configuration, decided by the function that the controller calls.

    Args:
        name: For the table.
        config: The options.
        cold_start_s: What a controller measures: how long replicas take to start.
    """

    tick_s = 1.0

    def __init__(self, name: str, config: AutoscalingConfig, cold_start_s: float) -> None:
        self.name = name
        self._config, self._cold_start_s = config, cold_start_s
        self._bounds = Bounds(config.min_replicas, config.max_replicas)
        self._state = ScalingState()
        self._window = LoadWindow()
        #: The last decision; None before the first.
        self.decision: Decision | None = None

    def start(self) -> int:
        """Return the starting replicas of the configuration."""
        return self._config.starting_replicas

    def decide(self, sample: LoadSample, target: int) -> int:
        """Ask `scaling.decide`."""
        config = self._config
        self._window = self._window.after(sample, config.look_back_period_s)
        demand = window_demand(
            config,
            self._window,
            sample.at,
            ready=sample.replicas,
            target=target,
            start_up_s=self._cold_start_s,
        )
        self.decision = decide(config, self._bounds, self._state, demand, sample.at)
        self._state = self.decision.state
        return self.decision.target


class KnativePolicy:
    """The rule of Knative's pod autoscaler with its defaults, as its documentation tells it.

    Every 2 s: the mean concurrency of 60 s, divided by 70 % of what a replica takes. When that of the last
    6 s needs twice the replicas that are ready, it panics: the most that was wanted holds until 60 s are calm.

    Args:
        setup: The replicas.
    """

    name, tick_s = "knative", 2.0

    def __init__(self, setup: Setup) -> None:
        self._target = 0.7 * setup.slots
        self._start = max(1, setup.min_replicas)
        self._samples: deque[float] = deque(maxlen=30)
        self._panic_at: float | None = None
        self._most = 0

    def start(self) -> int:
        """Return one, or the fewest."""
        return self._start

    def decide(self, sample: LoadSample, target: int) -> int:
        """Return the number that is wanted."""
        self._samples.append(sample.total)
        ready = max(1, sample.replicas)
        recent = list(self._samples)[-3:]
        stable = self._needed(sum(self._samples) / len(self._samples), ready)
        panic = self._needed(sum(recent) / len(recent), ready)
        if panic / ready >= 2.0:
            if self._panic_at is None:
                self._most = 0
            self._panic_at = sample.at
        elif self._panic_at is not None and sample.at - self._panic_at >= 60.0:
            self._panic_at = None
        if self._panic_at is None:
            return stable
        self._most = max(self._most, stable, panic)
        return max(self._most, target)

    def _needed(self, concurrency: float, ready: int) -> int:
        needed = math.ceil(round(concurrency / self._target, 9))
        return max(math.floor(ready / 2), min(1000 * ready, needed))


class StaticPolicy:
    """As many replicas as ever.

    Args:
        count: How many.
    """

    tick_s = 10.0

    def __init__(self, count: int) -> None:
        self.name = f"static {count}"
        self._count = count

    def start(self) -> int:
        """Return the number."""
        return self._count

    def decide(self, sample: LoadSample, target: int) -> int:
        """Return the number."""
        return self._count


def make_policy(name: str, setup: Setup) -> Policy:
    """Return a policy by its name, with its defaults.

    Args:
        name: One of `NAMES`, but not "static", which has to be searched.
        setup: The replicas.
    """
    common: dict[str, Any] = {"min_replicas": setup.min_replicas, "max_replicas": setup.max_replicas}
    if name == "knative":
        return KnativePolicy(setup)
    if name == "adaptive":
        policy = AutoscalingPolicy.parse(AdaptivePolicy(wait_s=setup.wait_s, quantile=setup.quantile))
        config = AutoscalingConfig(**common, target_ongoing_requests=setup.slots, policy=policy)
        return DecidedPolicy(name, config, setup.cold_start_s)
    if name == "ray":
        # Its default of 2 is more than a replica of one slot ever has.
        config = AutoscalingConfig(**common, target_ongoing_requests=min(2, setup.slots))
        return DecidedPolicy(name, config, setup.cold_start_s)
    raise ServeError(f"there is no policy {name!r}; choose from: {', '.join(NAMES)}")


def best_static(trace: Trace, setup: Setup, *, progress: Callable[[int], None] = lambda _: None) -> Outcome:
    """Return what the smallest fleet that meets the objective would have done: nobody knows it beforehand."""
    allowed = 1.0 - setup.quantile

    def suffices(count: int) -> Outcome | None:
        outcome = run(trace, StaticPolicy(count), setup, progress=progress)
        return outcome if outcome.miss_rate <= allowed or count >= setup.max_replicas else None

    high = 1
    while (found := suffices(high)) is None:
        high = min(2 * high, setup.max_replicas)
    low = high // 2 + 1
    while low < high:
        middle = (low + high) // 2
        outcome = suffices(middle)
        if outcome is None:
            low = middle + 1
        else:
            found, high = outcome, middle
    return found
