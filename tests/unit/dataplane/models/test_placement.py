"""A model's requests go to one replica from every caller, until that one is full or hot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from trygon.dataplane.models.news import ModelState
from trygon.dataplane.models.placement import place


@dataclass
class One:
    replica_id: str
    ongoing: int = 0
    others: int = 0
    is_suspect: bool = False
    has_room: bool = True
    models: dict[str, ModelState] = field(default_factory=dict)


def replicas(count: int = 4) -> list[One]:
    return [One(f"app#deployment#{number}") for number in range(count)]


def test_every_caller_sends_a_model_to_the_same_replica() -> None:
    first = place(replicas(), "store-17", 1)
    second = place(replicas()[::-1], "store-17", 2)

    assert first == second


def test_models_spread_evenly() -> None:
    counts = Counter(place(all_four, f"m{n}", 0).replica_id for n in range(4000) if (all_four := replicas()))  # type: ignore[union-attr]

    assert 4 == len(counts)
    assert 800 < min(counts.values()) <= max(counts.values()) < 1200


def test_a_lost_replica_moves_its_own_models_only() -> None:
    before = {f"m{n}": place(replicas(), f"m{n}", 0) for n in range(200)}
    after = {f"m{n}": place(replicas()[1:], f"m{n}", 0) for n in range(200)}

    assert all(before[key] == after[key] for key in before if before[key] in replicas()[1:])


def test_a_hot_model_spreads() -> None:
    four = replicas()
    taken = set()
    for _ in range(80):
        chosen = place(four, "hot", 0)
        assert chosen is not None
        chosen.ongoing += 1
        taken.add(chosen.replica_id)

    assert 1 < len(taken)


def test_a_full_or_suspect_replica_is_passed_over() -> None:
    two = replicas(2)
    home = place(two, "m", 0)
    assert home is not None
    home.has_room = False

    assert place(two, "m", 0) not in (home, None)
    home.has_room, home.is_suspect = True, True
    assert place(two, "m", 0) not in (home, None)


def test_no_room_anywhere_means_waiting() -> None:
    two = replicas(2)
    for one in two:
        one.has_room = False

    assert place(two, "m", 0) is None


def test_a_replica_that_has_the_model_goes_before_the_hash() -> None:
    four = replicas()
    home = place(four, "m", 0)
    other = next(one for one in four if one is not home)
    other.models["m"] = ModelState.LOADED

    assert other is place(four, "m", 0)


def test_of_those_that_have_it_the_one_with_least_work_then_fewest_models_takes_it() -> None:
    four = replicas()
    for one in four[:3]:
        one.models["m"] = ModelState.LOADED
    four[0].ongoing = 1
    four[1].models["n"] = ModelState.LOADED

    assert four[2] is place(four, "m", 0)
    four[2].others = 1
    assert four[1] is place(four, "m", 0)


def test_a_replica_that_loads_the_model_is_waited_for_whatever_work_it_has() -> None:
    four = replicas()
    four[1].models["m"] = ModelState.LOADING
    four[1].ongoing = 90

    assert four[1] is place(four, "m", 0)


def test_a_full_replica_that_loads_the_model_is_not_waited_for() -> None:
    four = replicas()
    four[1].models["m"] = ModelState.LOADING
    four[1].has_room = False

    assert place(four, "m", 0) not in (four[1], None)


def test_a_hot_model_gets_one_more_copy_at_a_time() -> None:
    four = replicas()
    four[1].models["m"] = ModelState.LOADED
    four[1].ongoing = 60
    copy = place(four, "m", 0)
    assert copy is not None
    assert copy is not four[1]

    copy.models["m"] = ModelState.LOADING
    assert four[1] is place(four, "m", 0)
    copy.models["m"] = ModelState.LOADED
    assert copy is place(four, "m", 0)


def test_a_single_replica_takes_every_model() -> None:
    (one,) = replicas(1)

    assert one is place([one], "m", 0)


def test_a_load_that_blocks_its_replica_is_not_begun_on_the_next_one() -> None:
    four = replicas()
    four[1].models["m"] = ModelState.LOADING
    four[1].is_suspect = True
    assert four[1] is place(four, "m", 0)
    assert four[2] is place(four, "n", 0, expected=four[2].replica_id)

    four[1].models["m"] = ModelState.LOADED
    assert place(four, "m", 0) not in (four[1], None)
