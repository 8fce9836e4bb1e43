"""The queue of batches: order, sizes, waits, groups, deadlines, and that no item is lost or given twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.batching import BatchItem, BatchQueue, BatchSettings, FixedWait, Taken


def item(value: Any = 0, *, at: float = 0.0, group: str = "", deadline: float = float("inf")) -> BatchItem:
    return BatchItem(value, group, arrived_at=at, deadline=deadline)


def queue(size: int = 3, wait_s: float = 1.0, **settings: Any) -> BatchQueue[BatchItem]:
    return BatchQueue(BatchSettings(size, FixedWait(wait_s), **settings))


def take(waiting: BatchQueue[BatchItem], now: float) -> Taken[BatchItem]:
    taken = waiting.take(now)
    assert taken is not None
    waiting.validate()
    return taken


def test_a_full_batch_goes_at_once_in_the_order_of_arrival() -> None:
    waiting = queue(size=3)
    items = [item(number) for number in range(4)]

    full = [waiting.add(each) for each in items]

    assert [False, False, True, True] == full
    assert items[:3] == take(waiting, 0.0).batch
    assert 1 == len(waiting)


def test_a_batch_that_is_not_full_goes_when_its_first_item_has_waited() -> None:
    waiting = queue(wait_s=1.0)
    first, second = item(at=10.0), item(at=10.9)
    waiting.add(first)
    waiting.add(second)

    assert waiting.take(10.99) is None
    assert 11.0 == waiting.wake_at
    assert [first, second] == take(waiting, 11.0).batch
    assert float("inf") == waiting.wake_at


def test_no_more_batches_run_at_once_than_allowed() -> None:
    waiting = queue(size=1, max_concurrent_batches=2)
    for number in range(3):
        waiting.add(item(number))
    take(waiting, 0.0)
    take(waiting, 0.0)

    assert waiting.take(99.0) is None
    assert float("inf") == waiting.wake_at

    waiting.finish(1, 0.1, 99.0)
    assert [2] == [each.value for each in take(waiting, 99.0).batch]


def test_items_of_several_groups_never_share_a_batch() -> None:
    waiting = queue(size=2, max_concurrent_batches=9)
    for number in range(4):
        waiting.add(item(number, group="ab"[number % 2], at=number))

    assert [[0, 2], [1, 3]] == [[each.value for each in take(waiting, 4.0).batch] for _ in range(2)]


def test_the_group_with_the_oldest_item_goes_first() -> None:
    waiting = queue(size=9, wait_s=1.0)
    waiting.add(item("young", group="a", at=0.5))
    waiting.add(item("old", group="b", at=0.1))

    assert ["old"] == [each.value for each in take(waiting, 5.0).batch]


def test_a_removed_item_is_never_handed_out_and_makes_room_for_another() -> None:
    waiting = queue(size=2)
    gone, kept, last = item("gone"), item("kept"), item("last")
    waiting.add(gone)
    waiting.remove(gone)
    waiting.remove(gone)

    assert not waiting.add(kept)
    assert waiting.add(last)
    assert [kept, last] == take(waiting, 0.0).batch
    waiting.remove(kept)
    assert [] == list(waiting)


def test_removing_one_of_a_full_group_makes_it_wait_again() -> None:
    waiting = queue(size=2)
    first, second = item(1), item(2)
    waiting.add(first)
    waiting.add(second)

    waiting.remove(second)

    assert waiting.take(0.5) is None
    assert [first] == list(waiting)


def test_expired_items_are_told_apart_and_never_run() -> None:
    waiting = queue(size=9, wait_s=1.0)
    waiting.add(item("late", deadline=0.5))
    waiting.add(item("in time", deadline=2.0))

    taken = take(waiting, 1.0)

    assert ["late"] == [each.value for each in taken.expired]
    assert ["in time"] == [each.value for each in taken.batch]


def test_a_group_of_expired_items_only_runs_nothing_and_takes_no_place() -> None:
    waiting = queue(wait_s=1.0)
    waiting.add(item("late", deadline=0.5))

    taken = take(waiting, 1.0)

    assert ([], ["late"]) == (taken.batch, [each.value for each in taken.expired])
    assert 0 == waiting.num_running
    assert waiting.take(1.0) is None


def test_a_size_that_is_changed_counts_for_what_waits() -> None:
    waiting = queue(size=10)
    for number in range(4):
        waiting.add(item(number))

    waiting.settings.max_batch_size = 2

    assert [0, 1] == [each.value for each in take(waiting, 0.0).batch]


def test_size_fn_bounds_the_batch_and_keeps_the_order() -> None:
    waiting = queue(size=10, size_fn=sum, max_concurrent_batches=9)
    for value in (6, 3, 4, 2):
        waiting.add(item(value))

    batches = [[each.value for each in take(waiting, 9.0).batch] for _ in range(2)]

    assert [[6, 3], [4, 2]] == batches


def test_an_item_larger_than_a_batch_is_refused_alone() -> None:
    waiting = queue(size=10, size_fn=sum)

    with pytest.raises(RuntimeError, match="11"):
        waiting.add(item(11))

    assert 0 == len(waiting)
    assert waiting.add(item(10))


def test_an_error_of_size_fn_is_the_new_items_and_stops_nothing() -> None:
    waiting = queue(size=10, size_fn=sum)
    waiting.add(item(1))

    with pytest.raises(TypeError):
        waiting.add(item("no number"))

    assert [1] == [each.value for each in take(waiting, 9.0).batch]


def test_a_size_fn_that_cannot_measure_a_part_closes_the_batch() -> None:
    def moody(values: list[int]) -> int:
        if values == [1, 2] and is_moody:
            raise ValueError("not today")
        return len(values)

    is_moody = False
    waiting = queue(size=9, size_fn=moody, max_concurrent_batches=9)
    for value in (1, 2, 3):
        waiting.add(item(value))
    is_moody = True

    first = [each.value for each in take(waiting, 9.0).batch]

    assert [1] == first
    assert [2, 3] == [each.value for each in take(waiting, 9.0).batch]


def test_a_size_fn_that_cannot_measure_what_is_left_leaves_it_to_its_wait() -> None:
    def moody(values: list[int]) -> int:
        if is_moody:
            raise ValueError("not today")
        return len(values)

    is_moody = False
    waiting = queue(size=9, size_fn=moody)
    items = [item(value) for value in range(3)]
    for each in items:
        waiting.add(each)
    is_moody = True

    waiting.remove(items[1])

    assert [0] == [each.value for each in take(waiting, 9.0).batch]


class Recorder(FixedWait):
    """Writes down what a policy is told."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.told: list[Any] = []

    def arrived(self, now: float, *, is_busy: bool) -> None:
        super().arrived(now, is_busy=is_busy)
        self.told.append(("arrived", now, is_busy))

    def executed(self, size: int, duration_s: float) -> None:
        super().executed(size, duration_s)
        self.told.append(("executed", size, duration_s))

    def missed(self, waited_s: float) -> None:
        super().missed(waited_s)
        self.told.append(("missed", waited_s))


def test_the_wait_policy_is_told_of_arrivals_misses_and_executions() -> None:
    recorder = Recorder()
    waiting = BatchQueue[BatchItem](BatchSettings(3, recorder))

    waiting.add(item(at=1.0))
    waiting.add(item(at=1.5))
    take(waiting, 2.0)
    waiting.finish(2, 0.25, 2.5)

    assert [
        ("arrived", 1.0, False),
        ("arrived", 1.5, True),
        ("missed", 0.5),
        ("executed", 2, 0.25),
    ] == recorder.told


def test_time_in_which_no_batch_could_run_is_no_wait_in_vain() -> None:
    recorder = Recorder()
    waiting = BatchQueue[BatchItem](BatchSettings(3, recorder))
    waiting.add(item(at=0.0))
    take(waiting, 1.0)
    waiting.add(item(at=2.0))

    waiting.finish(1, 7.0, 8.0)
    take(waiting, 8.5)

    assert ("missed", 0.5) == recorder.told[-1]


steps = st.lists(
    st.tuples(st.sampled_from("aaabrtf"), st.floats(0, 0.7), st.integers(0, 6), st.booleans()), max_size=80
)


@given(steps=steps, size=st.integers(1, 4), concurrent=st.integers(1, 3), measured=st.booleans())
def test_every_item_is_handed_out_once_in_order_or_left_by_its_caller(
    steps: list[tuple[str, float, int, bool]], size: int, concurrent: int, measured: bool
) -> None:
    size_fn = (lambda values: len(values)) if measured else None
    waiting = queue(size=size, wait_s=1.0, max_concurrent_batches=concurrent, size_fn=size_fn)
    now, running, given, removed, added = 0.0, [], [], set(), []
    for kind, pause_s, number, is_short in steps:
        now += pause_s
        if kind in "ab":
            new = item(len(added), at=now, group=kind, deadline=now + 0.5 if is_short else float("inf"))
            added.append(new)
            waiting.add(new)
        elif kind == "r" and added:
            gone = added[number % len(added)]
            if gone in list(waiting):
                removed.add(gone)
            waiting.remove(gone)
        elif kind == "f" and running:
            waiting.finish(running.pop(), 0.1, now)
        while (taken := waiting.take(now)) is not None:
            assert len(taken.batch) <= size
            assert all(each.deadline <= now for each in taken.expired)
            assert all(each.deadline > now for each in taken.batch)
            assert len({each.group for each in taken.batch}) <= 1
            given += taken.batch + taken.expired
            if taken.batch:
                running.append(len(taken.batch))
        waiting.validate()
        assert len(running) <= concurrent
    while len(waiting):
        now += 10.0
        while running:
            waiting.finish(running.pop(), 0.1, now)
        while (taken := waiting.take(now)) is not None:
            given += taken.batch + taken.expired
            if taken.batch:
                running.append(len(taken.batch))

    assert len(given) == len(set(given))
    assert set(added) == set(given) | removed
    assert not set(given) & removed
