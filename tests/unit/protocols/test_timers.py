"""The wheel of deadlines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trygon.protocols.http.timers import TimerWheel


def test_item_is_visited_after_its_deadline_never_before() -> None:
    wheel: TimerWheel[str] = TimerWheel(1.0, 100.0)
    wheel.add("a", 102.5)

    assert [] == wheel.sweep(102.4)
    assert [] == wheel.sweep(102.9)
    assert ["a"] == wheel.sweep(103.0)
    assert [] == wheel.sweep(200.0)
    assert "a" not in wheel


def test_earlier_deadline_wins() -> None:
    wheel: TimerWheel[str] = TimerWheel(1.0, 0.0)
    wheel.add("a", 90.0)
    wheel.add("a", 10.0)
    wheel.add("a", 50.0)

    assert ["a"] == wheel.sweep(11.0)
    assert 0 == len(wheel)


def test_discarded_item_is_not_visited() -> None:
    wheel: TimerWheel[str] = TimerWheel(1.0, 0.0)
    wheel.add("a", 1.0)
    wheel.add("b", 1.0)

    wheel.discard("a")
    wheel.discard("never there")

    assert ["b"] == wheel.sweep(5.0)


def test_deadline_in_the_past_is_visited_at_the_next_sweep() -> None:
    wheel: TimerWheel[str] = TimerWheel(1.0, 100.0)
    wheel.add("a", 3.0)

    assert ["a"] == wheel.sweep(101.0)


def test_long_sleep_visits_everything_in_order() -> None:
    wheel: TimerWheel[int] = TimerWheel(1.0, 0.0)
    for n in (5, 1, 3):
        wheel.add(n, float(n))

    assert [1, 3, 5] == wheel.sweep(1e9)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 50)), max_size=30), st.floats(0.01, 5))
def test_every_item_is_visited_once_within_two_widths(adds: list[tuple[int, float]], width: float) -> None:
    wheel: TimerWheel[int] = TimerWheel(width, 0.0)
    first: dict[int, float] = {}
    for item, deadline in adds:
        wheel.add(item, deadline)
        first[item] = min(first.get(item, deadline), deadline)

    visited: dict[int, float] = {}
    now = 0.0
    while now < 60:
        now += width
        for item in wheel.sweep(now):
            assert item not in visited
            visited[item] = now

    assert first.keys() == visited.keys()
    for item, when in visited.items():
        assert first[item] < when + 1e-9
        assert when <= first[item] + 2 * width + 1e-9
