from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trygon.loadtest.histogram import LatencyHistogram

LATENCIES = st.lists(st.floats(0, 3600), min_size=1, max_size=200)


def histogram(latencies: list[float]) -> LatencyHistogram:
    made = LatencyHistogram()
    for latency in latencies:
        made.record(latency)
    return made


@given(LATENCIES, st.floats(0.001, 1))
def test_a_quantile_is_right_to_one_part_in_a_hundred(latencies: list[float], share: float) -> None:
    exact = sorted(latencies)[max(1, -int(-share * len(latencies) // 1)) - 1]

    found = histogram(latencies).quantile(share)

    # Half a microsecond more: latencies are counted in whole ones.
    assert exact * 0.99 - 2e-6 <= found <= exact * 1.01 + 2e-6


@given(LATENCIES, LATENCIES)
def test_merged_histograms_are_those_of_all_latencies(left: list[float], right: list[float]) -> None:
    merged = histogram(left)
    merged.merge(histogram(right))

    whole = histogram(left + right)
    assert whole.counts == merged.counts
    assert whole.highest_us == merged.highest_us
    assert len(left) + len(right) == merged.total


def test_the_highest_latency_is_exact() -> None:
    made = histogram([0.001, 1.234567])

    assert 1.234567 == made.quantile(1.0)
    assert 1.234567 == made.highest_s


def test_the_mean_is_within_a_hundredth() -> None:
    made = histogram([0.1, 0.2, 0.3])

    assert abs(made.mean_s - 0.2) < 0.002


def test_nothing_counted_is_zero_everywhere() -> None:
    empty = LatencyHistogram()

    assert (0.0, 0.0, 0.0) == (empty.quantile(0.99), empty.mean_s, empty.highest_s)


def test_a_clock_that_stepped_back_counts_as_no_time() -> None:
    assert 0.0 == histogram([-0.5]).quantile(1.0)
