"""Stamps: seconds between two processes of one machine, in 32 bits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.stamps import monotonic, renew_stamps, seconds_since, set_stamping, stamp

_UNIT_S = 1024e-9
_ROUND = 1 << 32


@given(st.integers(1, 1 << 50), st.floats(0, 2000))
def test_the_time_between_is_found_also_when_the_stamp_comes_round(units: int, seconds: float) -> None:
    sent = units % _ROUND

    assert pytest.approx(seconds, abs=0.001) == seconds_since(sent, units * _UNIT_S + seconds)


def test_a_stamp_of_a_moment_ago_is_a_moment_old() -> None:
    renew_stamps()

    assert 0 <= seconds_since(stamp(), monotonic()) < 5


def test_a_stamp_ahead_of_the_clock_is_no_time_ago() -> None:
    assert 0.0 == seconds_since(1000, 500 * _UNIT_S)


def test_without_stages_there_is_no_stamp() -> None:
    set_stamping(is_on=False)
    try:
        assert 0 == stamp()
    finally:
        set_stamping(is_on=True)


def test_of_many_requests_between_two_publications_one_in_sixteen_is_measured() -> None:
    renew_stamps()
    first = [stamp() for _ in range(256)]
    beyond = [stamp() for _ in range(1600)]
    renew_stamps()

    assert all(first)
    assert 100 == sum(map(bool, beyond))
    assert stamp()
