"""Rates and quantiles of the last minute."""

from __future__ import annotations

import pytest

from trygon.observability.metrics.traffic import TrafficLog, quantile, traffic_of


def test_only_the_last_minute_counts() -> None:
    log = TrafficLog()
    key = ("a", "D")
    log.update(0.0, {key: (0, [100, 0])})
    slots = log.update(61.0, {key: (2, [100, 57])})

    traffic = traffic_of([slots[key]], (1.0,), 62.0)

    assert pytest.approx(1.0) == traffic.requests_per_s
    assert pytest.approx(2 / 57) == traffic.errors_per_s
    assert 1.0 == traffic.p50_ms


def test_what_was_over_a_minute_ago_is_forgotten() -> None:
    log = TrafficLog()
    log.update(0.0, {("a", ""): (0, [5, 5])})

    assert {} == log.update(100.0, {("a", ""): (0, [5, 5])})


def test_several_processes_add_up() -> None:
    traffic = traffic_of([[(0, 1, [1, 0])], [(0, 1, [2, 1])]], (10.0,), 0.0)

    assert pytest.approx(4 / 55) == traffic.requests_per_s
    assert pytest.approx(2 / 55) == traffic.errors_per_s


def test_no_request_has_no_latency() -> None:
    assert (None, None, None) == traffic_of([], (1.0,), 5.0)[2:]


@pytest.mark.parametrize("share, expected", [(0.5, 1.0), (0.75, 1.5), (1.0, 2.0)])
def test_a_quantile_is_interpolated_within_its_bucket(share: float, expected: float) -> None:
    assert pytest.approx(expected) == quantile(share, (1.0, 2.0), (2, 2, 0))


def test_beyond_the_last_bound_nothing_more_is_known() -> None:
    assert 2.0 == quantile(0.99, (1.0, 2.0), (0, 0, 4))
