"""The adaptive policy: what a percentile of the recent demand needs, and never less than the demand now. Pure.

The rules, in the order in which they are applied:

* Demand is the requests that would be in work if nobody had to wait: those in work, and while there is a queue
  what came, times how long a request takes. A backlog itself is no demand: it is there once, and drains.
* Its past is a histogram in which a sample counts half after a half-life, a shorter one if replicas start fast.
* The percentile begins at the objective's quantile. Late requests raise it, each second without any lowers it:
  it settles where the share of late requests is the objective's (adaptive conformal inference).
* The floor is the demand now, more of it while it rises, for as far ahead as a replica takes to start, and
  what drains the backlog within that time. It knows no delay, so that it is the answer to a panic, too.
* A season that was seen twice is a lower bound, never an upper one.
* Up at once. Down only to the most that was asked for during the hold, and not for a trifle.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from trygon.scaling.season import Season
from trygon.spec.autoscaling import AdaptivePolicy

__all__ = ["AdaptiveState", "Fleet", "Load", "Need", "adapt"]

#: Buckets of the histogram grow by this factor, so a percentile is off by half of it at most.
_GROWTH = 1.05
_LOG_GROWTH = math.log(_GROWTH)
#: Weights are made small again when they have grown by 2 to this power.
_REBASE = 40.0
#: How fast the tail moves: a second in which everybody is late takes this share off it.
_GAIN = 0.005
#: The widest tail that may be left uncovered, and how far beyond the whole histogram the rule may reach.
_WIDEST_TAIL, _DEEPEST = 0.3, -0.05
#: What each hundredth below zero adds to the margin.
_DEEP_MARGIN = 0.10
#: Time constants of the two means whose difference is the trend.
_FAST_S, _SLOW_S = 5.0, 40.0
#: How long the mean service time remembers.
_SERVICE_S = 60.0
#: The past that counts is at least this long, and this many times a replica's start.
_SHORTEST_HALF_LIFE_S, _STARTS = 60.0, 15.0
#: A rise within this many standard deviations of chance arrivals is none.
_NOISE = 4.0
#: A smaller share of the replicas is not given up: it would come back.
_TRIFLE = 0.05


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The demand over the time since the look before."""

    #: Requests that waited, and that were in work.
    queued: float
    running: float
    #: Requests that ended, and that came.
    completions: int = 0
    arrivals: int = 0

    @property
    def total(self) -> float:
        """All requests that there were."""
        return self.queued + self.running


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas that there are."""

    #: Requests that a replica takes at once.
    slots: float
    #: The number that was decided last, and those that work.
    target: int
    ready: int
    #: How long a replica takes to start.
    start_up_s: float = 0.0


class AdaptiveState(msgspec.Struct, frozen=True, kw_only=True):
    """What the next look must know."""

    at: float
    #: Weights by bucket, each `2 ** ((its moment - epoch) / half-life)`; the sum of them is `mass`.
    epoch: float
    weights: dict[int, float] = {}
    mass: float = 0.0
    #: The share of time that the percentile leaves uncovered; below zero the margin grows.
    tail: float
    #: Decayed seconds of work and requests that ended: their ratio is the mean service time.
    worked_s: float = 0.0
    ended: float = 0.0
    #: Requests that would be in work if nobody had to wait.
    demand: float = 0.0
    fast: float = 0.0
    slow: float = 0.0
    #: Since a time, the needs that no later one exceeds: the first is the most of the hold.
    needs: tuple[tuple[float, int], ...] = ()
    season: Season | None = None


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas are needed, and what each rule asked for."""

    #: Replicas to have, before bounds.
    count: int
    state: AdaptiveState
    #: By rule, in replicas.
    parts: dict[str, float]
    #: The rule that decided, and until when a hold keeps more than is needed; None when none does.
    rule: str
    held_until: float | None = None


def adapt(policy: AdaptivePolicy, state: AdaptiveState | None, load: Load, fleet: Fleet, now: float) -> Need:
    """Return how many replicas a deployment needs.

    Args:
        policy: The options.
        state: What the look before left; None for the first.
        load: The demand since then.
        fleet: The replicas that there are.
        now: Monotonic seconds.
    """
    slots, start_up_s = fleet.slots, fleet.start_up_s
    state = _observe(policy, state, load, now, start_up_s)
    percentile = _percentile(state, max(0.0, state.tail))
    margin = policy.margin + max(0.0, -state.tail) * 100 * _DEEP_MARGIN
    parts = {
        "percentile": percentile * margin / slots,
        "now": (state.demand + _drain(policy, state, load, start_up_s)) / slots,
        "trend": _ahead(state, start_up_s, policy.max_rise) / slots,
    }
    expected = None if state.season is None else state.season.expected(now + start_up_s)
    if expected is not None:
        parts["season"] = expected * margin / slots
    rule = max(parts, key=lambda name: parts[name])
    needed = math.ceil(round(parts[rule], 6))
    hold_s = max(policy.hold_s, start_up_s)
    needs = _remember(state.needs, needed, now, hold_s)
    state = msgspec.structs.replace(state, needs=needs)
    return _settled(Need(count=needed, state=state, parts=parts, rule=rule), fleet.target, hold_s)


def _settled(need: Need, target: int, hold_s: float) -> Need:
    """Return the need after the hold: down only to the most of it, and not for a trifle."""
    since, most = need.state.needs[0]
    if need.count >= target:
        return need
    if most >= target:
        return msgspec.structs.replace(need, count=target, rule="hold", held_until=since + hold_s)
    if target - most <= target * _TRIFLE and most > 0:
        return msgspec.structs.replace(need, count=target, rule="trifle")
    return msgspec.structs.replace(need, count=most)


def _observe(
    policy: AdaptivePolicy, state: AdaptiveState | None, load: Load, now: float, start_up_s: float
) -> AdaptiveState:
    if state is None:
        season = None if policy.season_s is None else Season(period_s=policy.season_s)
        total = load.total
        state = AdaptiveState(
            at=now, epoch=now, tail=1.0 - policy.quantile, demand=total, fast=total, slow=total, season=season
        )
    passed_s = now - state.at
    fade = math.exp(-passed_s / _SERVICE_S)
    worked_s = state.worked_s * fade + load.running * passed_s
    ended = state.ended * fade + load.completions
    demand = _demand(state, load, passed_s, worked_s / ended if ended > 1.0 else None)
    half_life_s = min(policy.half_life_s, max(_SHORTEST_HALF_LIFE_S, _STARTS * start_up_s))
    return AdaptiveState(
        at=now,
        **_histogram(state, demand, now, half_life_s),
        tail=_tail(policy, state.tail, load, passed_s),
        worked_s=worked_s,
        ended=ended,
        demand=demand,
        fast=_follow(state.fast, demand, passed_s, _FAST_S),
        slow=_follow(state.slow, demand, passed_s, _SLOW_S),
        needs=state.needs,
        season=None if state.season is None else state.season.after(demand, now),
    )


def _demand(state: AdaptiveState, load: Load, passed_s: float, service_s: float | None) -> float:
    """Return the requests that would be in work if nobody had to wait."""
    if load.queued <= 0.0 or not passed_s:
        return load.total
    if service_s is None:
        # Nothing ended yet: all that is known is that they are here.
        return load.total
    # With endless replicas the number in work follows what comes, as slowly as requests take.
    coming = load.arrivals / passed_s * service_s
    return min(load.total, max(load.running, _follow(state.demand, coming, passed_s, max(service_s, 1.0))))


def _drain(policy: AdaptivePolicy, state: AdaptiveState, load: Load, start_up_s: float) -> float:
    """Return the slots that drain the backlog while a replica would start."""
    service_s = state.worked_s / state.ended if state.ended > 1.0 else 0.0
    return max(0.0, load.total - state.demand) * service_s / max(start_up_s, policy.wait_s)


def _histogram(state: AdaptiveState, total: float, now: float, half_life_s: float) -> dict[str, Any]:
    passed_s = now - state.at
    age = (now - state.epoch) / half_life_s
    weights, mass, epoch = dict(state.weights), state.mass, state.epoch
    if age > _REBASE:
        scale = 2.0**-age
        weights = {bucket: weight * scale for bucket, weight in weights.items() if weight * scale > 1e-9}
        mass, epoch, age = sum(weights.values()), now, 0.0
    # A first look counts for a second: it is all there is.
    weight = 2.0**age * (passed_s if mass else 1.0)
    bucket = -1 if total <= 0 else max(0, math.ceil(math.log(total) / _LOG_GROWTH + 40))
    weights[bucket] = weights.get(bucket, 0.0) + weight
    return {"epoch": epoch, "weights": weights, "mass": mass + weight}


def _percentile(state: AdaptiveState, tail: float) -> float:
    """Return the demand that is exceeded for the share `tail` of the remembered time."""
    left = tail * state.mass
    for bucket in sorted(state.weights, reverse=True):
        left -= state.weights[bucket]
        if left < 0:
            # The upper edge is up to 5 % more than was seen: half of that is fair.
            return 0.0 if bucket < 0 else math.exp((bucket - 40.5) * _LOG_GROWTH)
    return 0.0


def _tail(policy: AdaptivePolicy, tail: float, load: Load, passed_s: float) -> float:
    """Move the tail by the share of requests that are late: those behind a queue too long to drain in time."""
    late = 0.0
    if load.queued > 0 and passed_s > 0:
        # By Little's law: who comes now waits until as many as are before it have ended.
        wait_s = load.queued * passed_s / load.completions if load.completions else math.inf
        late = float(wait_s > policy.wait_s)
    busy = late or load.running or load.arrivals
    if not busy:
        return tail
    moved = tail + _GAIN * passed_s * ((1.0 - policy.quantile) - late)
    return min(_WIDEST_TAIL, max(_DEEPEST, moved))


def _follow(mean: float, value: float, passed_s: float, constant_s: float) -> float:
    return value + (mean - value) * math.exp(-passed_s / constant_s)


def _ahead(state: AdaptiveState, start_up_s: float, max_rise: float) -> float:
    """Return the demand when a replica that is asked for now is ready, if the rise goes on."""
    rise = state.fast - state.slow
    if rise <= _NOISE * math.sqrt(max(state.slow, 1.0)):
        return state.demand
    slope = rise / (_SLOW_S - _FAST_S)
    return min(state.fast + slope * start_up_s, max_rise * state.fast)


def _remember(
    needs: tuple[tuple[float, int], ...], needed: int, now: float, hold_s: float
) -> tuple[tuple[float, int], ...]:
    kept = [(at, count) for at, count in needs if at > now - hold_s and count > needed]
    return (*kept, (now, needed))
