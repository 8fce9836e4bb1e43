"""Requests go to where their model is, or is expected; those that wait keep to it while it costs nobody much."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tests.unit.dataplane.models.test_placement import One, replicas
from trygon.dataplane.models.news import ModelState
from trygon.dataplane.models.places import EXPECTED_S, LOOK_AHEAD, ModelPlaces


@dataclass(eq=False)
class Waiting:
    model_id: str


def queue_of(*names: str) -> OrderedDict[Waiting, None]:
    return OrderedDict((Waiting(name), None) for name in names)


def test_a_thousand_requests_before_the_first_news_go_to_one_replica() -> None:
    four, places = replicas(), ModelPlaces()
    chosen = []
    for _ in range(1000):
        one = places.choose(four, "cold", 0, 10.0)
        assert one is not None
        one.ongoing += 1
        chosen.append(one.replica_id)

    assert 1 == len(set(chosen))


def test_a_replica_that_never_loads_what_it_was_sent_is_not_expected_to_for_ever() -> None:
    four, places = replicas(), ModelPlaces()
    home = places.choose(four, "m", 0, 10.0)
    assert home is not None
    home.ongoing = 100

    assert home is places.choose(four, "m", 0, 10.0 + EXPECTED_S / 2)
    assert home is not places.choose(four, "m", 0, 10.0 + EXPECTED_S)


def test_expectations_are_bounded() -> None:
    four, places = replicas(), ModelPlaces()
    for number in range(5000):
        places.choose(four, f"m{number}", 0, 10.0)

    assert len(places._expected) <= 1024


def test_a_replica_with_room_takes_the_first_request_that_it_has_the_model_for() -> None:
    queue = queue_of("a", "b", "c")
    one = One("one", models={"b": ModelState.LOADED})

    assert "b" == ModelPlaces().take_next(queue, one, 10.0).model_id
    assert ["a", "c"] == [call.model_id for call in queue]


def test_a_request_without_a_model_fits_everywhere() -> None:
    assert not ModelPlaces().take_next(queue_of("a", ""), One("one"), 10.0).model_id


def test_loading_is_better_than_an_idle_replica() -> None:
    assert "a" == ModelPlaces().take_next(queue_of("a", "b"), One("one"), 10.0).model_id


def test_a_request_is_passed_over_a_few_times_only() -> None:
    places, one = ModelPlaces(), One("one", models={"b": ModelState.LOADED})
    queue = queue_of("a", *"b" * 40)
    order = [places.take_next(queue, one, 10.0).model_id for _ in range(LOOK_AHEAD + 1)]

    assert [*"b" * LOOK_AHEAD, "a"] == order
