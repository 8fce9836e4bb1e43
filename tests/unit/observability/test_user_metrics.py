"""Metrics of user code: what is counted, and which mistakes are told."""

from __future__ import annotations

import pytest

from trygon.observability.user_metrics import Counter, Gauge, Histogram, Sample, collect


def held(name: str) -> list[Sample]:
    return [sample for sample in collect() if sample.name == name]


def test_a_counter_adds_up_for_each_set_of_tags() -> None:
    counter = Counter("test_requests", "requests", tag_keys=("kind",))

    counter.inc(tags={"kind": "a"})
    counter.inc(2, tags={"kind": "a"})
    counter.inc(tags={"kind": "b"})

    values = {sample.tags: sample.value for sample in held("test_requests")}
    assert values == {(("kind", "a"),): 3.0, (("kind", "b"),): 1.0}


def test_default_tags_fill_what_a_call_leaves_out() -> None:
    gauge = Gauge("test_level", tag_keys=("room", "floor"))
    gauge.set_default_tags({"floor": "1"})

    gauge.set(20.5, tags={"room": "x"})

    assert [((("floor", "1"), ("room", "x")), 20.5)] == [(s.tags, s.value) for s in held("test_level")]


def test_a_histogram_counts_into_cumulative_buckets() -> None:
    histogram = Histogram("test_latency", boundaries=[1, 10])

    for value in (0.5, 1.0, 5.0, 100.0):
        histogram.observe(value)

    (sample,) = held("test_latency")
    assert sample.buckets == ((1.0, 2), (10.0, 3), (float("inf"), 4))
    assert sample.value == 106.5


def test_the_route_tag_is_filled_in_when_it_is_not_given() -> None:
    counter = Counter("test_routes", tag_keys=("route",))

    counter.inc()

    assert [(("route", ""),)] == [sample.tags for sample in held("test_routes")]


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: Counter("with space"), ValueError, "name"),
        (lambda: Counter("x", tag_keys=["a"]), TypeError, "tuple"),
        (lambda: Counter("x", tag_keys=("replica",)), ValueError, "replica"),
        (lambda: Counter("x_total").inc(0), ValueError, "more than 0"),
        (lambda: Counter("x_tags").inc(tags={"other": "1"}), ValueError, "no tag key"),
        (lambda: Counter("x_missing", tag_keys=("a",)).inc(), ValueError, "needs a value"),
        (lambda: Histogram("x_h"), ValueError, "boundaries"),
        (lambda: Histogram("x_h", boundaries=[2, 1]), ValueError, "ascend"),
    ],
)
def test_a_mistake_is_told_at_once(make: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()  # type: ignore[operator]
