"""The adaptive policy, as `decide` applies it."""

from __future__ import annotations

import pytest

from trygon.scaling.context import LoadSample
from trygon.scaling.decision import Bounds, Decision, Demand, ScalingState, decide
from trygon.spec.autoscaling import AdaptivePolicy, AutoscalingConfig


class _Deployment:
    """A deployment that is told its load second by second."""

    def __init__(self, target: int = 1, *, low: int = 1, start_up_s: float = 0.0, **options: object) -> None:
        policy = AdaptivePolicy(**options)
        self.config = AutoscalingConfig(
            min_replicas=low, max_replicas=100, target_ongoing_requests=1, policy=policy
        )
        self.bounds = Bounds(low, 100)
        self.state = ScalingState()
        self.target = target
        self.start_up_s = start_up_s
        self.now = 1000.0
        self.changes = 0

    def second(
        self, running: float, queued: float = 0.0, *, completions: int = 10, ready: int | None = None
    ) -> Decision:
        self.now += 1.0
        sample = LoadSample(
            at=self.now, running=running, queued=queued, arrivals=completions, completions=completions
        )
        demand = Demand(
            total=sample.total,
            now_total=sample.total,
            ready=self.target if ready is None else ready,
            target=self.target,
            sample=sample,
            start_up_s=self.start_up_s,
        )
        decision = decide(self.config, self.bounds, self.state, demand, self.now)
        self.changes += decision.target != self.target
        self.state, self.target = decision.state, decision.target
        return decision

    def seconds(self, number: int, running: float, queued: float = 0.0) -> None:
        for _ in range(number):
            self.second(running, queued)


def test_a_step_up_is_followed_at_once() -> None:
    deployment = _Deployment()
    deployment.seconds(60, 1.0)

    decision = deployment.second(5.0, ready=5)

    assert decision.target >= 5
    assert "by " in decision.why


def test_replicas_are_kept_for_the_hold_and_given_up_after_it() -> None:
    deployment = _Deployment(hold_s=60, half_life_s=5)
    deployment.seconds(30, 10.0)
    most = deployment.target

    deployment.seconds(59, 1.0)
    kept = deployment.target
    decision = deployment.second(1.0)
    deployment.seconds(120, 1.0)

    assert kept == most
    assert "hold" in decision.why or decision.target < most
    assert deployment.target <= 2


def test_a_slow_start_makes_the_hold_as_long_as_the_start() -> None:
    deployment = _Deployment(hold_s=10, half_life_s=1, start_up_s=100)
    deployment.seconds(30, 10.0)
    most = deployment.target

    deployment.seconds(90, 1.0)

    assert deployment.target == most


def test_constant_load_changes_nothing_once_it_is_met() -> None:
    deployment = _Deployment()
    deployment.seconds(5, 7.0)
    deployment.changes = 0

    deployment.seconds(3600, 7.0)

    assert deployment.changes <= 2
    assert 7 <= deployment.target <= 9


def test_demand_that_the_percentile_remembers_keeps_its_replicas_between_bursts() -> None:
    deployment = _Deployment(hold_s=5)
    for _ in range(6):
        deployment.seconds(30, 10.0)
        deployment.seconds(60, 1.0)

    assert deployment.target >= 10


def test_late_requests_raise_the_percentile_and_punctual_ones_lower_it() -> None:
    deployment = _Deployment()
    deployment.seconds(10, 5.0)
    before = deployment.state.adaptive
    deployment.second(5.0, queued=100.0, completions=1)
    late = deployment.state.adaptive
    deployment.seconds(10, 5.0)
    punctual = deployment.state.adaptive

    assert before is not None
    assert late is not None
    assert punctual is not None
    assert late.tail < before.tail
    assert punctual.tail > late.tail


def test_a_queue_is_not_late_when_it_drains_in_time() -> None:
    deployment = _Deployment(wait_s=2.0)
    deployment.seconds(10, 5.0)
    before = deployment.state.adaptive

    deployment.second(5.0, queued=15.0, completions=10)

    assert before is not None
    assert deployment.state.adaptive is not None
    assert deployment.state.adaptive.tail > before.tail


def test_demand_far_above_the_replicas_is_answered_at_once_and_whole() -> None:
    deployment = _Deployment(target=2)

    assert deployment.second(2.0, queued=10.0).target >= 12


def test_a_backlog_asks_for_what_drains_it_and_not_for_a_replica_each() -> None:
    deployment = _Deployment(start_up_s=20.0)
    deployment.seconds(60, 10.0)

    for backlog in range(100, 400, 100):
        decision = deployment.second(10.0, queued=float(backlog), completions=10)

    assert 10 < decision.target < 60


def test_a_rise_is_followed_further_when_replicas_start_slowly() -> None:
    quick, slow = _Deployment(start_up_s=0.0), _Deployment(start_up_s=60.0)
    for deployment in (quick, slow):
        deployment.seconds(60, 20.0)
        for more in range(20):
            deployment.second(20.0 + 3 * more)

    assert slow.target > quick.target


def test_bounds_clip_and_are_named() -> None:
    deployment = _Deployment()

    decision = deployment.second(1000.0)

    assert decision.target == 100
    assert decision.held_by == "max_replicas"


def test_an_idle_deployment_goes_to_zero_by_way_of_one_and_is_left_alone_then() -> None:
    deployment = _Deployment(low=0, hold_s=5, half_life_s=1)
    deployment.seconds(10, 3.0)
    seen = []
    for _ in range(120):
        decision = deployment.second(0.0, completions=0)
        seen.append(decision.target)

    assert seen[-1] == 0
    assert seen[seen.index(0) - 1] == 1
    assert decision.wake_at is None


def test_from_zero_the_first_request_starts_a_replica() -> None:
    deployment = _Deployment(target=0, low=0)

    assert deployment.second(0.0, queued=1.0, completions=0).target >= 1


def test_a_season_is_a_lower_bound_after_two_of_them() -> None:
    deployment = _Deployment(season_s=480, hold_s=1, half_life_s=5)
    for _ in range(2):
        deployment.seconds(240, 1.0)
        deployment.seconds(240, 8.0)
    deployment.seconds(245, 1.0)

    decision = deployment.second(1.0)

    assert "season" in decision.why
    assert decision.target >= 8


def test_weights_are_made_small_again_and_forget_what_is_long_past() -> None:
    deployment = _Deployment(half_life_s=1, hold_s=1)
    deployment.seconds(5, 50.0)
    deployment.seconds(200, 2.0)

    assert deployment.state.adaptive is not None
    assert len(deployment.state.adaptive.weights) == 1
    assert deployment.target <= 3


@pytest.mark.parametrize("policy", ["adaptive", AdaptivePolicy(), {"policy_function": "adaptive"}])
def test_the_policy_has_a_short_name(policy: object) -> None:
    if isinstance(policy, dict):
        assert AutoscalingConfig(policy=policy).policy.adaptive is None
    else:
        assert AutoscalingConfig(policy=policy).policy.adaptive == AdaptivePolicy()


def test_an_unknown_option_or_policy_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="half_life_s"):
        AutoscalingConfig(
            policy={
                "policy_function": AutoscalingConfig(policy="adaptive").policy.policy_function,
                "policy_kwargs": {"half_life": 3},
            }
        )
    with pytest.raises(ValueError, match="module:name"):
        AutoscalingConfig(policy="adaptiv")


def test_the_policy_survives_plain_data() -> None:
    config = AutoscalingConfig(policy=AdaptivePolicy(wait_s=0.5, quantile=0.95))

    again = AutoscalingConfig(**config.to_builtins())

    assert again.policy.adaptive == config.policy.adaptive
