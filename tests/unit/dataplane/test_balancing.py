"""Power of two choices: never a replica without room, never more than one step from the emptier of two."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.balancing import choose


@dataclass
class One:
    ongoing: int = 0
    others: int = 0
    is_suspect: bool = False
    has_room: bool = True


candidates = st.lists(
    st.builds(
        One,
        ongoing=st.integers(0, 5),
        others=st.integers(0, 5),
        is_suspect=st.booleans(),
        has_room=st.booleans(),
    ),
    max_size=6,
)
draws = st.integers(0, 2**32 - 1)


@given(candidates, draws)
def test_only_replicas_with_room_are_chosen(replicas: list[One], draw: int) -> None:
    chosen = choose(replicas, draw)

    if chosen is not None:
        assert chosen.has_room
        assert any(chosen is one for one in replicas)


@given(candidates, draws)
def test_a_suspect_one_is_chosen_only_when_all_are(replicas: list[One], draw: int) -> None:
    chosen = choose(replicas, draw)

    if chosen is not None and chosen.is_suspect:
        assert all(one.is_suspect for one in replicas)


@given(candidates, draws)
def test_room_on_a_live_replica_is_never_missed(replicas: list[One], draw: int) -> None:
    if any(one.has_room and not one.is_suspect for one in replicas):
        assert choose(replicas, draw) is not None


@given(st.integers(0, 9), st.integers(0, 9), draws)
def test_the_emptier_of_two_is_chosen(one: int, two: int, draw: int) -> None:
    replicas = [One(ongoing=one), One(others=two)]

    chosen = choose(replicas, draw)

    assert chosen is not None
    assert min(one, two) == chosen.ongoing + chosen.others


def test_the_most_loaded_replica_stays_close_to_the_mean() -> None:
    chance = random.Random(5)
    replicas = [One() for _ in range(20)]

    for _ in range(20 * 50):
        chosen = choose(replicas, chance.getrandbits(32))
        assert chosen is not None
        chosen.ongoing += 1

    assert 50 + 5 >= max(one.ongoing for one in replicas)
    assert 50 - 8 <= min(one.ongoing for one in replicas)
