from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.errors import ConfigError
from trygon.loadtest.schedule import Phase, arrivals, parse_duration, parse_ramp, parse_rate

RATES = st.floats(0.5, 500)


@given(RATES, RATES, st.floats(0.1, 20))
def test_a_ramp_sends_as_many_as_its_area(start: float, end: float, length_s: float) -> None:
    phase = Phase(start, end, length_s)

    times = list(arrivals((phase,)))

    assert abs(len(times) - phase.count) <= 1
    assert times == sorted(times)
    assert all(-1e-6 <= at <= length_s + 1e-6 for at in times)


def test_several_senders_share_an_even_schedule() -> None:
    phases = (Phase(10, 10, 2), Phase(10, 30, 2))

    shared = [list(arrivals(phases, first=number, step=3)) for number in range(3)]

    assert list(arrivals(phases)) == pytest.approx(sorted(itertools.chain(*shared)))


def test_random_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    times = list(arrivals((Phase(100, 100, 200),), chance=random.Random(7).random))

    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert abs(len(times) - 20_000) < 600
    assert abs(deviation / mean - 1) < 0.05


def test_phases_follow_each_other() -> None:
    times = list(arrivals((Phase(1, 1, 2), Phase(2, 2, 2))))

    assert [0, 1, 2, 2.5, 3, 3.5] == pytest.approx(times)


@pytest.mark.parametrize(
    "text, seconds",
    [("30", 30), ("30s", 30), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), ("250us", 0.00025)],
)
def test_durations_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert seconds == pytest.approx(parse_duration(text))


@pytest.mark.parametrize("text, rps", [("500", 500), ("500/s", 500), ("30/m", 0.5), ("7200/h", 2)])
def test_rates_are_read_with_their_unit(text: str, rps: float) -> None:
    assert rps == pytest.approx(parse_rate(text))


def test_a_ramp_is_read() -> None:
    assert Phase(100, 1000, 60) == parse_ramp("100:1000/60s")


@pytest.mark.parametrize("text", ["", "fast", "-1s", "5 parsecs"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="wanted a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "0", "fast/s", "5/week", "-3"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="wanted a rate such as"):
        parse_rate(text)


@pytest.mark.parametrize(
    "text", ["", "10", "10:20", "a:b/5s", "0:0/5s", "1:2/0s", "-1:5/3s", "nan:1/5s", "inf:1/1s"]
)
def test_what_is_no_ramp_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_ramp(text)
