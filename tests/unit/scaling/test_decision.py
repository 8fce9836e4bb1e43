"""From load to a number of replicas: gains, bounds, delays, and the ways to zero and from it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.scaling.context import LoadSample, LoadWindow
from trygon.scaling.decision import Bounds, Decision, Demand, Proposal, ScalingState, decide, window_demand
from trygon.spec.autoscaling import AggregationFunction, AutoscalingConfig

CALM = ScalingState()


def config(**options: Any) -> AutoscalingConfig:
    return AutoscalingConfig(**{"min_replicas": 1, "max_replicas": 10, **options})


def demand(total: float, *, target: int, now_total: float | None = None) -> Demand:
    return Demand(
        total=total, now_total=total if now_total is None else now_total, ready=target, target=target
    )


def decided(
    options: AutoscalingConfig,
    load: Demand,
    now: float = 0.0,
    state: ScalingState = CALM,
    proposed: Proposal | None = None,
) -> Decision:
    bounds = Bounds(options.min_replicas, options.max_replicas)
    return decide(options, bounds, state, load, now, proposed=proposed)


def at_once(**options: Any) -> AutoscalingConfig:
    return config(upscale_delay_s=0, downscale_delay_s=0, **options)


@pytest.mark.parametrize(
    "total, target, wanted",
    [(9, 1, 5), (8, 4, 4), (8.1, 4, 5), (1, 5, 1), (0, 5, 1), (100, 1, 10)],
    ids=str,
)
def test_requests_for_each_replica_come_to_the_target(total: float, target: int, wanted: int) -> None:
    assert wanted == decided(at_once(target_ongoing_requests=2), demand(total, target=target)).target


def test_gains_damp_both_directions() -> None:
    options = at_once(target_ongoing_requests=1, upscaling_factor=0.5, downscaling_factor=0.25)

    up = decided(options, demand(10, target=2))
    down = decided(options, demand(2, target=10))

    assert (6, 8) == (up.target, down.target)


def test_a_change_is_made_when_it_was_called_for_as_long_as_the_delay_says() -> None:
    options = config(upscale_delay_s=3, target_ongoing_requests=1)

    first = decided(options, demand(5, target=1), 10.0)
    before = decided(options, demand(6, target=1), 12.9, first.state)
    after = decided(options, demand(6, target=1), 13.0, before.state)

    assert (1, 13.0, "upscale_delay_s") == (first.target, first.wake_at, first.held_by)
    assert 1 == before.target
    assert (6, 13.0) == (after.target, after.state.last_up)


def test_a_break_begins_the_delay_anew() -> None:
    options = config(upscale_delay_s=3, target_ongoing_requests=1)
    rising = decided(options, demand(5, target=1), 10.0)

    calm = decided(options, demand(1, target=1), 12.0, rising.state)
    again = decided(options, demand(5, target=1), 13.5, calm.state)

    assert (1, 16.5) == (again.target, again.wake_at)


def test_a_fall_ends_a_rise_and_the_other_way_round() -> None:
    options = config(upscale_delay_s=3, downscale_delay_s=4, target_ongoing_requests=1)
    rising = decided(options, demand(5, target=2), 10.0)

    falling = decided(options, demand(1, target=2), 12.0, rising.state)

    assert (None, 12.0) == (falling.state.rising_since, falling.state.falling_since)


def test_zero_is_reached_from_one_only_and_after_a_delay_of_its_own() -> None:
    options = config(min_replicas=0, downscale_delay_s=1, downscale_to_zero_delay_s=5)

    first = decided(options, demand(0, target=3), 0.0)
    one = decided(options, demand(0, target=3), 1.0, first.state)
    waits = decided(options, demand(0, target=one.target), 1.5, one.state)
    none = decided(options, demand(0, target=1), 6.5, waits.state)

    assert (3, 1) == (first.target, one.target)
    assert (1, 6.5, "downscale_to_zero_delay_s") == (waits.target, waits.wake_at, waits.held_by)
    assert 0 == none.target


def test_from_zero_the_first_request_starts_replicas_without_a_delay_or_a_mean() -> None:
    options = config(min_replicas=0, upscale_delay_s=30)
    eager = config(min_replicas=0, upscale_delay_s=30, upscaling_factor=2.5)

    assert 1 == decided(options, demand(0.01, target=0, now_total=1)).target
    assert 3 == decided(eager, demand(0.01, target=0, now_total=1)).target
    assert 0 == decided(options, demand(0.5, target=0, now_total=0)).target


def test_what_clips_a_proposal_is_told() -> None:
    over = decided(at_once(), demand(100, target=1))
    under = decided(at_once(min_replicas=3), demand(0, target=3))

    assert ("max_replicas", "min_replicas") == (over.held_by, under.held_by)
    assert "max_replicas allows 10" in over.why
    assert "100.0 requests over 30 s" in over.why


def test_bounds_that_were_changed_hold_at_once() -> None:
    assert 4 == decided(config(min_replicas=4), demand(0, target=2)).target
    assert 3 == decided(config(max_replicas=3), demand(50, target=9)).target


def test_gains_delays_and_bounds_lie_over_the_proposal_of_a_policy_too() -> None:
    options = config(upscaling_factor=0.5, upscale_delay_s=3)
    asked = Proposal(count=30, policy_state={"n": 1})

    first = decided(options, demand(0, target=2), 0.0, proposed=asked)
    later = decided(options, demand(0, target=2), 3.0, first.state, proposed=asked)

    assert (2, {"n": 1}) == (first.target, first.state.policy_state)
    assert (10, "max_replicas") == (later.target, later.held_by)


@given(
    total=st.floats(0, 1e6),
    target=st.integers(0, 50),
    low=st.integers(0, 20),
    more=st.integers(0, 20),
    gain=st.floats(0.1, 5),
)
def test_a_target_within_bounds_stays_there(
    total: float, target: int, low: int, more: int, gain: float
) -> None:
    high = max(1, low + more)
    options = at_once(min_replicas=low, max_replicas=high, upscaling_factor=gain, downscaling_factor=gain)

    found = decided(options, demand(total, target=target))

    assert low <= found.target <= high


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_time_that_passes_alone_never_makes_more_than_one_change(loads: list[float]) -> None:
    """With a constant load the number settles at once."""
    options = at_once(target_ongoing_requests=2)
    target, changes = 1, 0
    for now, _ in enumerate(loads):
        found = decided(options, demand(loads[0], target=target), float(now))
        changes += found.target != target
        target = found.target

    assert changes <= 1


# ---- the window


def window(*totals: float, step_s: float = 1.0) -> LoadWindow:
    found = LoadWindow()
    for number, total in enumerate(totals):
        found = found.after(LoadSample(at=number * step_s, running=total), keep_s=30)
    return found


def test_a_sample_speaks_of_the_time_before_it() -> None:
    found = window(0, 4, 4, 10)

    assert 10 == found.total(3.0, 1.0, AggregationFunction.MEAN)
    assert 7 == found.total(3.0, 2.0, AggregationFunction.MEAN)
    assert 6 == found.total(3.0, 30.0, AggregationFunction.MEAN)


def test_the_aggregate_is_the_largest_or_smallest_where_that_was_asked_for() -> None:
    found = window(3, 8, 5)

    assert 8 == found.total(2.0, 30.0, AggregationFunction.MAX)
    assert 3 == found.total(2.0, 30.0, AggregationFunction.MIN)
    assert 0 == LoadWindow().total(2.0, 30.0, AggregationFunction.MAX)


def test_a_first_sample_counts_alone() -> None:
    assert 6 == window(6).total(0.0, 30.0, AggregationFunction.MEAN)


def test_old_samples_are_dropped_but_for_the_one_that_the_look_back_begins_in() -> None:
    found = window(*range(100))

    assert (69.0, 99.0) == (found.samples[0].at, found.samples[-1].at)


def test_rates_are_those_of_the_look_back() -> None:
    found = LoadWindow()
    for second in range(5):
        found = found.after(LoadSample(at=float(second), arrivals=20, completions=10), keep_s=30)

    assert (20, 10) == (found.rate("arrivals", 4.0, 3.0), found.rate("completions", 4.0, 30.0))
    assert 0 == LoadWindow().rate("arrivals", 0.0, 1.0)


def test_the_demand_is_what_the_window_says() -> None:
    options = config(look_back_period_s=2)

    samples = window(0, 4, 8)

    found = window_demand(options, samples, 2.0, ready=1, target=2, start_up_s=3.0)

    last = samples.samples[-1]
    assert Demand(total=6, now_total=8, ready=1, target=2, sample=last, start_up_s=3.0) == found
