"""How many replicas there shall be: a proposal, bounds, and delays that it must hold for. Pure.

Ray Serve's rules: the default proposal makes requests for each replica come to the target, with a gain on the
difference; a change is made when it was called for without a break for as long as the delay says; zero is
reached from one only; and from zero the first request starts replicas without any delay.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from trygon.scaling.adaptive import AdaptiveState, Fleet, Load, Need, adapt
from trygon.scaling.context import LoadSample, LoadWindow
from trygon.spec.autoscaling import AdaptivePolicy, AutoscalingConfig

__all__ = ["Bounds", "Decision", "Demand", "Proposal", "ScalingState", "decide", "propose", "window_demand"]

#: Times are sums of floats.
_EPSILON_S = 1e-6
#: The adaptive policy looks at least this often while anything can change.
_LOOK_S = 1.0


class Bounds(msgspec.Struct, frozen=True):
    """The fewest and the most replicas, after the capacity that the configuration grants."""

    low: int
    high: int

    def clip(self, count: int) -> int:
        """Return the nearest number within."""
        return max(self.low, min(self.high, count))


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to decide by."""

    #: Requests that wait or are in work: over the look-back period, and now.
    total: float
    now_total: float
    #: Ready replicas.
    ready: int
    #: The number that was decided last.
    target: int
    #: The last sample; without it the adaptive policy takes all requests for requests in work.
    sample: LoadSample | None = None
    #: How long a replica takes to start, as measured; 0 while nobody knows.
    start_up_s: float = 0.0


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy of the user's says."""

    count: float
    policy_state: dict[str, Any] = {}


class ScalingState(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision must know of those before it."""

    #: Since when more, and fewer, replicas were called for without a break; None when they are not.
    rising_since: float | None = None
    falling_since: float | None = None
    #: Monotonic times of the last changes.
    last_up: float | None = None
    last_down: float | None = None
    policy_state: dict[str, Any] = {}
    #: What the adaptive policy remembers.
    adaptive: AdaptiveState | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas there shall be, and why."""

    target: int
    state: ScalingState
    #: When to look again although nothing happens; None when only an event changes anything.
    wake_at: float | None
    #: What was proposed before bounds and delays.
    proposed: float
    #: The inputs, the proposal, and what held or clipped it, in one sentence.
    why: str
    #: What kept the number from being the proposed one: a bound or a delay by its name, or nothing.
    held_by: str = ""


def propose(config: AutoscalingConfig, demand: Demand) -> float:
    """Return what Ray Serve's default policy asks for, before bounds and delays."""
    per_replica = config.get_target_ongoing_requests() or 1.0
    if demand.target == 0:
        if not demand.now_total:
            return 0
        return max(math.ceil(config.get_upscaling_factor()), demand.target)
    # Those that start count already: otherwise every look would ask for them once more.
    current = demand.target
    wanted = demand.total / per_replica
    factor = config.get_upscaling_factor() if wanted > current else config.get_downscaling_factor()
    # Half a hair below the next integer is that integer, not one more.
    return math.ceil(round(current + factor * (wanted - current), 9))


def decide(
    config: AutoscalingConfig,
    bounds: Bounds,
    state: ScalingState,
    demand: Demand,
    now: float,
    *,
    proposed: Proposal | None = None,
) -> Decision:
    """Return how many replicas there shall be.

    Args:
        config: The deployment's options.
        bounds: Its bounds.
        state: What the last decision left.
        demand: The load, and the replicas that there are.
        now: Monotonic seconds.
        proposed: What the user's policy says; None asks the default policy.
    """
    adaptive = config.policy.adaptive if proposed is None else None
    if adaptive is not None:
        return _adapted(config, adaptive, bounds, state, demand, now)
    raw = propose(config, demand) if proposed is None else proposed.count
    count = max(0, math.ceil(raw))
    if proposed is not None:
        state = msgspec.structs.replace(state, policy_state=proposed.policy_state)
        count = _damped(config, demand.target, count)
    wanted = bounds.clip(count)
    held_by = "" if wanted == count else f"{'max' if count > bounds.high else 'min'}_replicas"
    if wanted == 0 and demand.target > 1:
        wanted, held_by = max(1, bounds.low), "downscale_to_zero_delay_s"
    inputs = _inputs(config, demand, raw, is_custom=proposed is not None)
    if not bounds.low <= demand.target <= bounds.high:
        # Bounds that were changed hold at once.
        return _changed(state, demand.target, wanted, now, raw, f"{inputs}; the bounds changed", held_by)
    if wanted == demand.target:
        calm = msgspec.structs.replace(state, rising_since=None, falling_since=None)
        return Decision(
            target=wanted,
            state=calm,
            wake_at=None,
            proposed=raw,
            why=f"{inputs}{_clipped(held_by, bounds)}",
            held_by=held_by,
        )
    delay_name, delay_s, since = _delay(config, state, demand.target, wanted, now)
    if demand.target == 0 or now - since >= delay_s - _EPSILON_S:
        return _changed(
            state, demand.target, wanted, now, raw, f"{inputs}{_clipped(held_by, bounds)}", held_by
        )
    is_up = wanted > demand.target
    waiting = msgspec.structs.replace(
        state, rising_since=since if is_up else None, falling_since=None if is_up else since
    )
    return Decision(
        target=demand.target,
        state=waiting,
        wake_at=since + delay_s,
        proposed=raw,
        why=f"{inputs}{_clipped(held_by, bounds)}; it must hold for {delay_s:g} s ({delay_name})",
        held_by=delay_name,
    )


def _damped(config: AutoscalingConfig, target: int, count: int) -> int:
    """Return a policy's number after the gain, which Ray Serve lays over every policy but from zero."""
    if target == 0:
        return count
    factor = config.get_upscaling_factor() if count > target else config.get_downscaling_factor()
    return max(0, math.ceil(round(target + factor * (count - target), 9)))


def _delay(
    config: AutoscalingConfig, state: ScalingState, target: int, wanted: int, now: float
) -> tuple[str, float, float]:
    """Return the delay that counts, by name and length, and since when the change was called for."""
    if wanted > target:
        return (
            "upscale_delay_s",
            config.upscale_delay_s,
            now if state.rising_since is None else state.rising_since,
        )
    since = now if state.falling_since is None else state.falling_since
    if wanted == 0 and config.downscale_to_zero_delay_s is not None:
        return "downscale_to_zero_delay_s", config.downscale_to_zero_delay_s, since
    return "downscale_delay_s", config.downscale_delay_s, since


def _changed(  # noqa: PLR0913 - the parts of one value
    state: ScalingState, target: int, wanted: int, now: float, raw: float, why: str, held_by: str
) -> Decision:
    is_up = wanted > target
    return Decision(
        target=wanted,
        state=msgspec.structs.replace(
            state,
            rising_since=None,
            falling_since=None,
            last_up=now if is_up else state.last_up,
            last_down=state.last_down if is_up else now,
        ),
        wake_at=None,
        proposed=raw,
        why=why,
        held_by=held_by,
    )


def _inputs(config: AutoscalingConfig, demand: Demand, raw: float, *, is_custom: bool) -> str:
    load = f"{demand.total:.1f} requests over {config.look_back_period_s:g} s, {demand.now_total:.1f} now"
    rule = "the policy" if is_custom else f"{config.target_ongoing_requests:g} for each replica"
    return f"{load}, {demand.target} replicas; {rule} asks for {raw:g}"


def _clipped(held_by: str, bounds: Bounds) -> str:
    if held_by == "max_replicas":
        return f", max_replicas allows {bounds.high}"
    if held_by == "min_replicas":
        return f", min_replicas keeps {bounds.low}"
    return ", zero is reached from one only" if held_by else ""


def _adapted(
    config: AutoscalingConfig,
    policy: AdaptivePolicy,
    bounds: Bounds,
    state: ScalingState,
    demand: Demand,
    now: float,
) -> Decision:
    """Return what the adaptive policy decides: it has no gain and no delays but its own hold."""
    sample = demand.sample or LoadSample(at=now, running=demand.now_total)
    load = Load(
        queued=sample.queued,
        running=sample.running,
        arrivals=sample.arrivals,
        completions=sample.completions,
    )
    slots = config.get_target_ongoing_requests() or 1.0
    fleet = Fleet(slots=slots, target=demand.target, ready=demand.ready, start_up_s=demand.start_up_s)
    need = adapt(policy, state.adaptive, load, fleet, now)
    state = msgspec.structs.replace(state, adaptive=need.state)
    wanted = bounds.clip(need.count)
    if wanted == 0 and demand.target > 1:
        wanted = 1
    held_by = "" if wanted == need.count else f"{'max' if need.count > bounds.high else 'min'}_replicas"
    why = f"{_explained(need, load)}{_clipped(held_by, bounds)}"
    # Past demand fades as time goes by, without any event.
    wake_at = now + _LOOK_S if load.total or wanted > bounds.low else None
    if wanted == demand.target:
        return Decision(
            target=wanted, state=state, wake_at=wake_at, proposed=need.count, why=why, held_by=held_by
        )
    changed = _changed(state, demand.target, wanted, now, need.count, why, held_by)
    return msgspec.structs.replace(changed, wake_at=wake_at)


def _explained(need: Need, load: Load) -> str:
    parts = ", ".join(f"{name} {value:.1f}" for name, value in need.parts.items())
    left = "" if need.held_until is None else f", {need.held_until - need.state.at:.0f} s left"
    percentile = 100 * (1.0 - max(0.0, need.state.tail))
    return (
        f"{load.queued:.1f} wait, {load.running:.1f} in work; {need.count} by {need.rule}{left}, of {parts} "
        f"(percentile {percentile:.1f})"
    )


def window_demand(
    config: AutoscalingConfig,
    window: LoadWindow,
    now: float,
    *,
    ready: int,
    target: int,
    start_up_s: float = 0.0,
) -> Demand:
    """Return the demand that a window of samples stands for."""
    last = window.samples[-1].total if window.samples else 0.0
    return Demand(
        total=window.total(now, config.look_back_period_s, config.aggregation_function),
        now_total=last,
        ready=ready,
        target=target,
        sample=window.samples[-1] if window.samples else None,
        start_up_s=start_up_s,
    )
