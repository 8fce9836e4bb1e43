from __future__ import annotations

import pytest

from trygon.errors import ConfigError
from trygon.loadtest.histogram import LatencyHistogram
from trygon.loadtest.limits import parse_limit
from trygon.loadtest.result import Report, Result, Second


def result() -> Result:
    """98 answers of 10 ms, one of 1 s and one failure, in 10 s."""
    latencies = LatencyHistogram()
    for latency in [0.01] * 98 + [1.0]:
        latencies.record(latency)
    report = Report(
        completed=99,
        failures={"timeout": 1},
        counts=latencies.counts,
        highest_us=latencies.highest_us,
        elapsed_s=10.0,
    )
    return Result([report])


@pytest.mark.parametrize(
    "text, holds",
    [
        ("p50>9ms", True),
        ("p50 > 11ms", False),
        ("p98>20ms", False),
        ("p99.9>20ms", True),
        ("max>=1s", True),
        ("max>1s", False),
        ("mean<15ms", False),
        ("mean<25ms", True),
        ("errors>0", True),
        ("errors>1", False),
        ("errors>0.5%", True),
        ("errors>1%", False),
        ("rate<10/s", True),
        ("rate<9/s", False),
    ],
)
def test_a_condition_holds_or_not(text: str, holds: bool) -> None:
    assert holds is parse_limit(text).holds(result())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p99",
        "p99>",
        "p0>1s",
        "p101>1s",
        "speed>3",
        "p99>fast",
        "errors>many",
        "errors>x%",
        "rate<x",
        "p99=1s",
    ],
)
def test_what_is_no_condition_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_limit(text)


def test_the_reports_of_several_senders_add_up() -> None:
    reports = [
        Report(
            completed=3,
            seconds={0: Second(2, 0, 50), 1: Second(1, 0, 10)},
            elapsed_s=2.0,
            sent=4,
            sent_late=2,
        ),
        Report(completed=5, failures={"timeout": 2}, seconds={0: Second(5, 2, 90)}, elapsed_s=1.9, sent=4),
    ]

    both = Result(reports)

    assert (8, 2, 10) == (both.num_completed, both.num_failed, both.num_requests)
    assert Second(7, 2, 90) == both.seconds[0]
    assert 4.0 == both.rps
    assert 0.25 == both.late_share
    assert both.is_own_limit
