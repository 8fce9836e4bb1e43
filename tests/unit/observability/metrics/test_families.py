"""Families: cells, their bounds, merging, and the text that Prometheus reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from trygon.observability.metrics import MAX_SERIES, FamilySnapshot, Registry, stage_cell
from trygon.observability.metrics.exposition import full_name, render
from trygon.observability.metrics.merging import merge


def counted(name: str, **samples: float) -> FamilySnapshot:
    found = {(label,): value for label, value in samples.items()}
    return FamilySnapshot(name, "counter", "help", ("label",), (), False, "", dict(found))


def test_a_cell_is_the_same_for_the_same_labels() -> None:
    family = Registry().counter("n", "", ("a", "b"))

    family.cell("1", "2").value += 3

    assert {("1", "2"): 3} == family.snapshot().samples
    with pytest.raises(ValueError, match="labels"):
        family.cell("1")


def test_a_family_may_be_declared_again_but_not_otherwise() -> None:
    registry = Registry()
    family = registry.counter("n", "", ("a",))

    assert family is registry.counter("n", "", ("a",))
    with pytest.raises(ValueError, match="twice"):
        registry.gauge("n", "", ("a",))


def test_series_beyond_the_bound_are_counted_and_not_kept() -> None:
    registry = Registry()
    family = registry.counter("n", "", ("a",))

    for number in range(MAX_SERIES + 5):
        family.cell(str(number)).value += 1

    found = {snapshot.name: snapshot for snapshot in registry.snapshot()}
    assert MAX_SERIES == len(found["n"].samples)
    assert {("n",): 5} == found["metrics_dropped_series"].samples


def test_a_histogram_shows_seconds_as_milliseconds() -> None:
    registry = Registry()
    cell = registry.histogram("t_ms", "", (), bounds=(1.0, 10.0), scale=1000.0).cell()

    for seconds in (0.0005, 0.001, 0.005, 1.0):
        cell.observe(seconds)

    (family,) = registry.snapshot()
    assert [2, 1, 1, pytest.approx(1006.5)] == family.samples[()]


def test_the_first_change_after_a_publication_is_told_once() -> None:
    registry = Registry()
    told: list[int] = []
    registry.on_change = lambda: told.append(1)

    for _ in range(3):
        if registry.is_quiet:
            registry.wake()

    assert [1] == told


def test_collectors_fill_cells_before_a_snapshot() -> None:
    registry = Registry()
    cell = registry.gauge("level", "", ()).cell()

    def collect() -> None:
        cell.value = 7

    registry.add_collector(collect)

    assert {(): 7} == registry.snapshot()[0].samples
    registry.remove_collector(collect)
    registry.clear()
    assert [] == registry.snapshot()


def test_a_stage_that_there_is_not_is_told() -> None:
    with pytest.raises(ValueError, match="accept, queue"):
        stage_cell("lunch", "a", "d")


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), st.integers(0, 99)), max_size=5))
def test_merging_counts_loses_nothing(parts: list[dict[str, int]]) -> None:
    merged = merge(counted("n", **part) for part in parts)

    total = sum(value for family in merged for value in family.samples.values())  # type: ignore[misc]
    assert sum(sum(part.values()) for part in parts) == total


def test_families_with_other_labels_are_merged_by_label() -> None:
    program = FamilySnapshot("n", "counter", "", ("kind",), (), True, "", {("a",): 1})
    replica = FamilySnapshot("n", "counter", "", ("replica", "kind"), (), True, "", {("r", "a"): 2})

    (family,) = merge([program, replica])

    found = {frozenset(zip(family.labels, values, strict=True)): n for values, n in family.samples.items()}
    assert {
        frozenset([("kind", "a"), ("replica", "")]): 1,
        frozenset([("kind", "a"), ("replica", "r")]): 2,
    } == found


def test_names_follow_rays_rule_with_either_prefix() -> None:
    assert "trygon_num_http_requests_total" == full_name("num_http_requests", "counter")
    assert "ray_serve_num_http_requests_total" == full_name("num_http_requests", "counter", prefix="ray")
    assert "ray_mine_total" == full_name("mine_total", "counter", is_user=True, prefix="ray")
    assert "trygon_mine" == full_name("mine", "gauge", is_user=True)


def test_the_text_is_what_prometheus_parses() -> None:
    odd = 'back\\slash "quote"\nnew line'
    families = [
        FamilySnapshot("n", "counter", odd, ("label",), (), False, "", {(odd,): 3, ("",): 0.5}),
        FamilySnapshot("t_ms", "histogram", "", ("l",), (1.0, 2.5), False, "", {("x",): [1, 2, 3, 9.5]}),
        FamilySnapshot("g", "gauge", "", (), (), True, "", {(): math.inf}),
    ]

    parsed = {family.name: family for family in text_string_to_metric_families(render(families))}

    found = {sample.labels.get("label"): sample.value for sample in parsed["trygon_n"].samples}
    assert {odd: 3.0, None: 0.5} == found
    buckets = {s.labels["le"]: s.value for s in parsed["trygon_t_ms"].samples if s.name.endswith("_bucket")}
    assert {"1": 1.0, "2.5": 3.0, "+Inf": 6.0} == buckets
    assert math.inf == parsed["trygon_g"].samples[0].value


def test_user_code_cannot_take_a_name_of_ours() -> None:
    theirs = FamilySnapshot("n", "gauge", "theirs", (), (), True, "", {(): 1})
    ours = FamilySnapshot("n", "gauge", "ours", (), (), False, "", {(): 2})

    assert "trygon_n 2\n" in render([theirs, ours])
    assert "theirs" not in render([theirs, ours])


def test_no_number_breaks_the_text() -> None:
    for value, shown in ((math.nan, "NaN"), (-math.inf, "-Inf"), (1e20, "1e+20"), (2.0, "2")):
        family = FamilySnapshot("n", "gauge", "", (), (), False, "", {(): value})

        assert f"trygon_n {shown}\n" in render([family])
