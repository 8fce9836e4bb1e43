"""Requests go to where their model is, or is expected; those that wait keep to it while it costs nobody much."""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass

from tests.unit.dataplane.models.test_placement import One, replicas
from trygon.dataplane.models.news import ModelState
from trygon.dataplane.models.places import EXPECTED_S, LOOK_AHEAD, ModelPlaces
from trygon.dataplane.models.policy import Admission, CachePolicy


@dataclass(eq=False)
class Waiting:
    model_id: str


def queue_of(*names: str) -> OrderedDict[Waiting, float]:
    return OrderedDict((Waiting(name), 0.0) for name in names)


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

    assert "b" == ModelPlaces().take_next(queue, one, 10.0)[0].model_id
    assert ["a", "c"] == [call.model_id for call in queue]


def test_a_request_without_a_model_fits_everywhere() -> None:
    assert not ModelPlaces().take_next(queue_of("a", ""), One("one"), 10.0)[0].model_id


def test_loading_is_better_than_an_idle_replica() -> None:
    assert "a" == ModelPlaces().take_next(queue_of("a", "b"), One("one"), 10.0)[0].model_id


def test_a_request_is_passed_over_a_few_times_only() -> None:
    places, one = ModelPlaces(), One("one", models={"b": ModelState.LOADED})
    queue = queue_of("a", *"b" * 40)
    order = [places.take_next(queue, one, 10.0)[0].model_id for _ in range(LOOK_AHEAD + 1)]

    assert [*"b" * LOOK_AHEAD, "a"] == order


def test_four_caches_find_nearly_as_many_models_as_one_ideal_cache_of_their_size() -> None:
    """10,000 models, a Zipf order, room for 100 in the pool; `scripts/bench multiplex` is the same on processes."""
    four, places = replicas(), ModelPlaces()
    caches = {one.replica_id: bounded(25) for one in four}
    ideal: OrderedDict[int, None] = OrderedDict()
    hits = ideal_hits = 0
    weights = [1 / rank for rank in range(1, 10_001)]
    for now, number in enumerate(random.Random(0).choices(range(10_000), weights=weights, k=10_000)):
        ideal_hits += number in ideal
        ideal[number] = None
        ideal.move_to_end(number)
        if len(ideal) > 100:
            ideal.popitem(last=False)
        one = places.choose(four, f"m{number}", 0, float(now))
        assert one is not None
        hits += ask(one, caches[one.replica_id], f"m{number}")

    assert hits >= 0.95 * ideal_hits


def bounded(max_models: int) -> CachePolicy:
    return CachePolicy(max_models=max_models, max_bytes=None, max_parallel_loads=1, failure_ttl_s=1.0)


def ask(one: One, cache: CachePolicy, model_id: str) -> bool:
    """Use a model of a replica that tells what becomes of its models; True when it was there."""
    is_hit = cache.admit(model_id, 0.0) is Admission.HELD
    if not is_hit:
        begun = cache.next_load()
        assert begun is not None
        for given_up in [*begun[1], *cache.loaded(model_id, 0)]:
            del one.models[given_up]
        one.models[model_id] = ModelState.LOADED
    cache.release(model_id)
    return is_hit


def test_what_is_expected_moves_on_with_the_requests() -> None:
    four, places = replicas(), ModelPlaces()
    first = places.choose(four, "m", 0, 10.0)
    assert first is not None
    first.has_room = False
    second = places.choose(four, "m", 0, 10.0)
    assert second is not None
    second.ongoing = 100

    assert second is places.choose(four, "m", 0, 10.1)


def test_no_room_anywhere_means_waiting_and_expects_nothing() -> None:
    two, places = replicas(2), ModelPlaces()
    for one in two:
        one.has_room = False

    assert places.choose(two, "m", 0, 10.0) is None
