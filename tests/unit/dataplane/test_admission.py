"""How many requests may wait follows from how fast they leave, and refused clients do not come back together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.admission import (
    MAX_QUEUED,
    UNMEASURED_BOUND,
    DrainRate,
    Pace,
    RetryBudget,
    queue_bound,
    retry_after_s,
    wait_is_too_long,
)


def drain(rate: DrainRate, *, per_s: float, seconds: float, start: float = 0.0, batch: int = 1) -> float:
    """Let requests leave at a steady pace while others wait; return the time after it."""
    rate.begin(start)
    now = start
    for _ in range(int(per_s * seconds / batch)):
        now += batch / per_s
        for _ in range(batch):
            rate.leave(now)
    return now


@given(
    per_s=st.floats(0.5, 5000),
    batch=st.integers(1, 20),
)
def test_a_steady_drain_is_measured_exactly(per_s: float, batch: int) -> None:
    rate = DrainRate()

    now = drain(rate, per_s=per_s, seconds=max(3.0, 8 * batch / per_s), batch=batch)

    assert per_s == pytest.approx(rate.per_s(now), rel=1e-6)


def test_nothing_is_said_after_a_moment_of_waiting() -> None:
    rate = DrainRate()

    now = drain(rate, per_s=1000, seconds=0.2)

    assert rate.per_s(now) is None
    assert rate.per_s(now + 0.1) is not None


def test_time_without_waiting_does_not_count() -> None:
    rate = DrainRate()
    now = drain(rate, per_s=100, seconds=2)

    now = drain(rate, per_s=100, seconds=2, start=now + 3600)

    assert 100 == pytest.approx(rate.per_s(now), rel=0.01)
    assert 100 == pytest.approx(rate.per_s(now + 60, is_waiting=False), rel=0.01)


def test_time_without_replicas_does_not_count() -> None:
    rate = DrainRate()
    now = drain(rate, per_s=100, seconds=2)

    rate.pause()

    assert 100 == pytest.approx(rate.per_s(now + 30), rel=0.01)
    rate.leave(now + 30)
    assert 100 == pytest.approx(rate.per_s(now + 30), rel=0.01)


def test_a_queue_that_stands_still_grows_slower() -> None:
    rate = DrainRate()
    now = drain(rate, per_s=100, seconds=4)

    assert 60 > (rate.per_s(now + 2) or math.inf) > 0


def test_a_change_is_followed_within_a_few_seconds() -> None:
    rate = DrainRate()
    now = drain(rate, per_s=1000, seconds=10)

    now = drain(rate, per_s=100, seconds=6, start=now)

    assert 100 == pytest.approx(rate.per_s(now), rel=0.5)


def test_what_a_replica_did_not_take_has_not_left() -> None:
    rate = DrainRate()
    now = drain(rate, per_s=100, seconds=4)
    before = rate.per_s(now)

    rate.leave(now)
    rate.undo()

    assert before == rate.per_s(now)
    empty = DrainRate()
    empty.undo()
    assert empty.per_s(now) is None


@pytest.mark.parametrize(
    "rate, num_slots, max_wait_s, bound",
    [
        (None, 5, 1.0, UNMEASURED_BOUND),
        (None, 400, 1.0, 400),
        (250.0, 5, 1.0, 200),
        (250.0, 5, 4.0, 800),
        (0.5, 5, 1.0, 5),
        (0.001, 0, 1.0, 1),
        (1e9, 5, 1.0, MAX_QUEUED),
        (250.0, 5, math.inf, MAX_QUEUED),
    ],
)
def test_the_bound_is_the_wait_at_the_measured_rate(
    rate: float | None, num_slots: int, max_wait_s: float, bound: int
) -> None:
    assert bound == queue_bound(rate, num_slots, max_wait_s)


def test_a_request_is_hopeless_only_by_a_margin_and_when_the_rate_is_known() -> None:
    assert not wait_is_too_long(10_000, None, 0.1)
    assert not wait_is_too_long(110, 100.0, 1.0)
    assert wait_is_too_long(130, 100.0, 1.0)


@given(st.integers(0, 10_000), st.none() | st.floats(0.01, 1e5), st.integers(0, 65535))
def test_retry_after_is_whole_seconds_and_not_before_the_queue_is_gone(
    num_queued: int, rate: float | None, draw: int
) -> None:
    after_s = retry_after_s(num_queued, rate, draw)

    assert isinstance(after_s, int)
    assert after_s >= 1
    if rate is not None:
        assert after_s >= min(num_queued / rate, 60)


def test_clients_that_are_refused_together_do_not_come_back_together() -> None:
    assert {1, 2, 3} == {retry_after_s(250, 250.0, draw) for draw in range(100)}


# ---- retries


def test_a_first_death_may_be_repeated_whole() -> None:
    budget = RetryBudget()
    budget.earn(1_000_000, 5, now=0.0)

    assert [True] * 5 + [False] == [budget.spend() for _ in range(6)]


def test_nothing_is_spent_before_anything_is_earned() -> None:
    assert not RetryBudget().spend()


@given(
    st.lists(
        st.tuples(st.floats(0.001, 5.0), st.integers(0, 500), st.integers(0, 200)), min_size=1, max_size=60
    )
)
def test_repeats_are_a_tenth_of_the_requests_and_a_few_for_each_window(
    deaths: list[tuple[float, int, int]],
) -> None:
    budget, now, num_started, spent = RetryBudget(), 0.0, 0, 0
    for pause_s, num_new, num_lost in deaths:
        now += pause_s
        num_started += num_new
        budget.earn(num_started, 10, now)
        spent += sum(budget.spend() for _ in range(num_lost))

    assert spent <= 10 + 0.1 * num_started + 10 * now / 10.0 + 1e-6


def test_what_is_not_spent_is_not_saved_up() -> None:
    budget = RetryBudget()
    for second in range(1000):
        budget.earn(100 * second, 10, now=float(second))

    assert 120 >= sum(budget.spend() for _ in range(1000)) >= 100


def test_what_was_served_before_a_stall_bounds_the_queue_and_not_the_stall() -> None:
    pace = Pace()
    pace.look(0, 10.0)
    pace.look(600, 11.0)

    assert 480 == queue_bound(20.0, 8, 1.0, pace.per_s(11.0))
    assert 480 == queue_bound(None, 8, 1.0, pace.per_s(11.0))
    assert 100 == queue_bound(None, 8, 1.0, pace.per_s(60.0)), "long ago"


def test_a_pace_is_not_taken_from_a_moment_nor_lowered_by_a_stall() -> None:
    pace = Pace()
    pace.look(0, 10.0)
    pace.look(50, 10.01)

    assert 0.0 == pace.per_s(10.01)

    pace.look(600, 11.0)
    pace.look(610, 11.6)

    assert pace.per_s(11.6) > 500
