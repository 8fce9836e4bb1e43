"""A deployment in virtual time: who waits, what is paid for, and how the policies compare."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest

from trygon.errors import ServeError
from trygon.scaling.context import LoadSample
from trygon.simulation.fleet import Outcome, Setup, run
from trygon.simulation.policies import KnativePolicy, StaticPolicy, best_static, make_policy
from trygon.simulation.trace import SHAPES, Trace, generate


def trace(*requests: tuple[float, float]) -> Trace:
    return Trace("t", array("d", [at for at, _ in requests]), array("d", [work for _, work in requests]))


class Scripted:
    """Wants what a function of the time says."""

    name, tick_s = "scripted", 1.0

    def __init__(self, first: int, wanted: Callable[[float], int]) -> None:
        self.first, self.wanted = first, wanted
        self.samples: list[LoadSample] = []

    def start(self) -> int:
        return self.first

    def decide(self, sample: LoadSample, target: int) -> int:
        self.samples.append(sample)
        return self.wanted(sample.at)


BARE = Setup(warm_up_s=0.0, cold_start_s=3.0)


def test_requests_are_served_in_order_and_late_ones_are_counted() -> None:
    requests = trace((0.0, 2.0), (0.5, 2.0), (1.0, 2.0))

    outcome = run(requests, StaticPolicy(1), BARE)

    assert 2 == outcome.misses
    assert outcome.wait_p99_s == pytest.approx(3.0)


def test_slots_serve_side_by_side() -> None:
    requests = trace((0.0, 2.0), (0.0, 2.0), (0.0, 2.0))

    outcome = run(requests, StaticPolicy(1), Setup(slots=2, warm_up_s=0.0))

    assert outcome.wait_p99_s == pytest.approx(2.0)


def test_a_replica_serves_after_its_cold_start_and_is_paid_for_from_the_decision() -> None:
    requests = trace((0.0, 100.0), (0.5, 1.0), (10.0, 1.0))
    policy = Scripted(1, lambda _: 2)

    outcome = run(requests, policy, BARE)

    assert outcome.wait_p99_s == pytest.approx(3.5)
    assert 1 == outcome.cold_waits
    assert 1 == outcome.scale_changes
    assert outcome.replica_seconds == pytest.approx(1 + 2 * 10)


def test_a_busy_replica_that_leaves_ends_its_request_and_takes_no_other() -> None:
    requests = trace((0.0, 5.0), (0.0, 5.0), (2.0, 1.0))
    policy = Scripted(2, lambda _: 1)

    outcome = run(requests, policy, BARE)

    # One of the two that run goes; the third request waits for the other.
    assert outcome.wait_p99_s == pytest.approx(3.0)
    assert 3 == outcome.requests


def test_what_starts_is_given_up_first() -> None:
    policy = Scripted(1, lambda at: 3 if at < 2 else 1)

    outcome = run(trace((0.0, 0.1), (9.0, 0.1)), policy, BARE)

    assert 1 == outcome.peak


def test_samples_are_what_callers_would_report() -> None:
    policy = Scripted(1, lambda _: 1)

    run(trace((0.25, 0.5), (0.5, 1.0), (3.0, 0.1)), policy, BARE)

    first, second = policy.samples[:2]
    assert (2, 1) == (first.arrivals, first.completions)
    assert first.running == pytest.approx(0.75)
    assert first.queued == pytest.approx(0.25)
    assert (0, 1) == (second.arrivals, second.completions)
    assert second.running == pytest.approx(0.75)


def test_what_is_never_served_is_late() -> None:
    outcome = run(trace((0.0, 1.0)), Scripted(0, lambda _: 0), Setup(warm_up_s=0.0, min_replicas=0))

    assert outcome.miss_rate == 1.0


def test_the_warm_up_is_not_scored() -> None:
    outcome = run(trace((0.0, 9.0), (1.0, 1.0), (20.0, 1.0)), StaticPolicy(1), Setup(warm_up_s=15.0))

    assert (1, 0) == (outcome.requests, outcome.misses)


def test_the_best_static_fleet_is_the_smallest_that_suffices() -> None:
    requests = generate("ramps", seed=2, duration_s=900.0, rate=10.0)

    best = best_static(requests, BARE)
    count = int(best.policy.split()[1])

    assert best.miss_rate <= 0.01
    assert run(requests, StaticPolicy(count - 1), BARE).miss_rate > 0.01


def test_too_small_a_bound_ends_the_search() -> None:
    requests = generate("ramps", seed=2, duration_s=300.0, rate=10.0)

    best = best_static(requests, Setup(max_replicas=3, warm_up_s=0.0))

    assert ("static 3", 3) == (best.policy, best.peak)


def test_knative_follows_the_mean_and_panics_at_twice_what_is_there() -> None:
    policy = KnativePolicy(Setup())
    at = 0.0

    def tick(total: float, replicas: int, target: int) -> int:
        nonlocal at
        at += 2.0
        return policy.decide(LoadSample(at=at, running=total, replicas=replicas), target)

    for _ in range(30):
        calm = tick(7.0, 10, 10)
    assert 10 == calm
    for _ in range(3):
        panic = tick(35.0, 10, 10)
    assert 50 == panic
    for _ in range(20):
        assert tick(0.0, 50, 50) == 50
    for _ in range(20):
        after = tick(0.0, 50, 50)
    assert 25 == after


@pytest.mark.parametrize("name", ["adaptive", "ray", "knative"])
def test_the_same_trace_gives_the_same_outcome(name: str) -> None:
    requests = generate("bursts", seed=5, duration_s=600.0, rate=10.0)

    def once() -> Outcome:
        return run(requests, make_policy(name, Setup()), Setup())

    assert once() == once()


@pytest.mark.parametrize("shape", list(SHAPES))
def test_adaptive_is_as_good_as_the_defaults_of_ray_in_both_figures(shape: str) -> None:
    requests = generate(shape, seed=6, duration_s=1800.0, rate=15.0)
    setup = Setup(cold_start_s=20.0)

    ours, theirs = (run(requests, make_policy(name, setup), setup) for name in ("adaptive", "ray"))

    assert ours.miss_rate <= theirs.miss_rate
    assert ours.replica_seconds <= theirs.replica_seconds


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ServeError, match="adaptive"):
        make_policy("best", Setup())
