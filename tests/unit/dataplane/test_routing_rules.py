"""The built-in rules beside power of two choices: who takes the next request."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.routing.rules import (
    SLACK,
    HashRing,
    best_of,
    first_cool,
    least_loaded,
    next_in_turn,
)


@dataclass
class One:
    replica_id: str = "a"
    ongoing: int = 0
    others: int = 0
    is_suspect: bool = False
    has_room: bool = True


candidates = st.lists(
    st.builds(
        One,
        replica_id=st.text("abc", max_size=3),
        ongoing=st.integers(0, 5),
        others=st.integers(0, 5),
        is_suspect=st.booleans(),
        has_room=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda one: one.replica_id,
)
draws = st.integers(0, 2**32 - 1)


@given(candidates, draws)
def test_every_rule_chooses_one_with_room_when_there_is_one(replicas: list[One], draw: int) -> None:
    for chosen in (least_loaded(replicas, draw), next_in_turn(replicas, "b"), best_of(replicas)):
        assert (chosen is None) is not any(one.has_room for one in replicas)
        assert chosen is None or chosen.has_room


@given(candidates, draws)
def test_a_suspect_one_is_chosen_only_when_all_with_room_are(replicas: list[One], draw: int) -> None:
    for chosen in (least_loaded(replicas, draw), next_in_turn(replicas, "b"), best_of(replicas)):
        if chosen is not None and chosen.is_suspect:
            assert all(one.is_suspect for one in replicas if one.has_room)


@given(candidates, draws)
def test_nobody_has_less_work_than_the_least_loaded(replicas: list[One], draw: int) -> None:
    chosen = least_loaded(replicas, draw)

    if chosen is not None:
        others = [one for one in replicas if one.has_room and not (one.is_suspect and not chosen.is_suspect)]
        assert all(chosen.ongoing + chosen.others <= one.ongoing + one.others for one in others)


def test_turns_go_round() -> None:
    replicas = [One("b"), One("c"), One("a")]
    last, turns = "", ""

    for _ in range(7):
        chosen = next_in_turn(replicas, last)
        assert chosen is not None
        last = chosen.replica_id
        turns += last

    assert "abcabca" == turns


def test_who_has_no_room_is_left_out_of_its_turn() -> None:
    assert "c" == getattr(next_in_turn([One("a"), One("b", has_room=False), One("c")], "a"), "replica_id", "")


# ---- consistent hashing

names = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


@given(names, st.text(), st.integers(1, 8))
def test_a_key_has_different_holders_as_many_as_there_are(ids: list[str], key: str, count: int) -> None:
    holders = HashRing(ids, 10).holders(key, count)

    assert min(count, len(ids)) == len(set(holders)) == len(holders)
    assert set(holders) <= set(ids)


@given(names, st.text())
def test_all_callers_agree_whatever_order_they_heard_of_the_replicas_in(ids: list[str], key: str) -> None:
    assert HashRing(ids, 10).holders(key, 3) == HashRing(sorted(ids), 10).holders(key, 3)


@given(st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=2, max_size=6, unique=True), st.text())
def test_a_replica_that_goes_moves_only_its_own_keys(ids: list[str], key: str) -> None:
    gone, *left = ids
    before, second = HashRing(ids, 10).holders(key, 2)

    after = HashRing(left, 10).holders(key, 1)[0]

    assert after == (second if before == gone else before)


def test_nobody_holds_a_key_of_an_empty_ring() -> None:
    assert () == HashRing((), 100).holders("key", 3)


def test_keys_are_spread_evenly() -> None:
    ring = HashRing([f"replica-{number}" for number in range(10)], 100)

    held = Counter(ring.holders(f"session-{number}", 1)[0] for number in range(10_000))

    assert 700 < min(held.values())
    assert 1400 > max(held.values())


def test_the_first_holder_takes_its_key_while_it_has_no_more_work_than_is_fair() -> None:
    first, second, third = (One(name) for name in "abc")
    everyone = [first, second, third]

    first.ongoing = SLACK
    assert first is first_cool([first, second], everyone)
    first.ongoing = 10 * SLACK
    assert second is first_cool([first, second], everyone)


def test_a_key_waits_when_its_holders_have_no_room() -> None:
    first, second = One("a", has_room=False), One("b", is_suspect=True)

    assert None is first_cool([first, second], [first, second, One("c")])


def test_a_hot_holder_is_better_than_none() -> None:
    hot, idle = One("a", ongoing=100), One("b")

    assert hot is first_cool([hot], [hot, idle, idle, idle, idle])
