"""The built-in policies as functions, and what holds for every decision of the adaptive one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.scaling.context import AutoscalingContext, DeploymentID, LoadSample
from trygon.scaling.decision import Bounds, Demand, ScalingState, decide
from trygon.serve.autoscaling_policy import (
    AdaptivePolicy,
    default_autoscaling_policy,
    replica_queue_length_autoscaling_policy,
)
from trygon.spec.autoscaling import AutoscalingConfig


def context(total: float, target: int, **options: object) -> AutoscalingContext:
    return AutoscalingContext(
        deployment_id=DeploymentID("Main"),
        deployment_name="Main",
        app_name="default",
        current_num_replicas=target,
        target_num_replicas=target,
        total_num_requests=total,
        config=AutoscalingConfig(max_replicas=100, **options),
    )


@pytest.mark.parametrize(
    "total, target, expected", [(10.0, 1, 5), (10.0, 20, 5), (0.0, 3, 0), (1.0, 0, 1), (0.0, 0, 0)]
)
def test_the_default_policy_brings_requests_to_the_target(total: float, target: int, expected: int) -> None:
    assert (expected, {}) == default_autoscaling_policy(context(total, target))
    assert (expected, {}) == replica_queue_length_autoscaling_policy(context(total, target))


def test_the_gain_is_left_to_what_is_laid_over_the_result() -> None:
    assert 5 == default_autoscaling_policy(context(10.0, 1, upscaling_factor=0.5))[0]


_SAMPLES = st.lists(
    st.tuples(
        st.floats(0.0, 1e4),
        st.floats(0.0, 1e4),
        st.integers(0, 1000),
        st.integers(0, 1000),
        st.floats(0.0, 500.0),
    ),
    max_size=30,
)


@given(samples=_SAMPLES, low=st.integers(0, 3), more=st.integers(0, 50), start_up_s=st.floats(0.0, 300.0))
def test_whatever_comes_the_number_stays_within_its_bounds_and_has_a_reason(
    samples: list[tuple[float, float, int, int, float]], low: int, more: int, start_up_s: float
) -> None:
    bounds = Bounds(low, max(1, low + more))
    config = AutoscalingConfig(
        min_replicas=bounds.low, max_replicas=bounds.high, policy=AdaptivePolicy(season_s=100)
    )
    state, target, now = ScalingState(), bounds.high, 0.0
    for queued, running, arrivals, completions, passed_s in samples:
        now += passed_s
        sample = LoadSample(
            at=now, queued=queued, running=running, arrivals=arrivals, completions=completions
        )
        demand = Demand(
            total=sample.total,
            now_total=sample.total,
            ready=target,
            target=target,
            sample=sample,
            start_up_s=start_up_s,
        )
        decision = decide(config, bounds, state, demand, now)
        assert bounds.low <= decision.target <= bounds.high
        assert decision.why
        assert decision.target > 0 or target <= 1
        state, target = decision.state, decision.target
