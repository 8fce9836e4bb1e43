"""The wait that tunes itself: what it learns, and simulated arrivals in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.batch_wait import AdaptiveWait, CostEstimate
from trygon.dataplane.batching import BatchItem, BatchQueue, BatchSettings, FixedWait, WaitPolicy

FIXED_S, ITEM_S = 0.004, 0.00001


@given(fixed=st.floats(1e-4, 1.0), each=st.floats(1e-5, 0.1))
def test_the_cost_of_batches_of_several_sizes_is_found(fixed: float, each: float) -> None:
    cost = CostEstimate()

    for size in (1, 7, 3, 64, 20):
        cost.add(size, fixed + each * size)

    assert cost.item_s == pytest.approx(each, rel=1e-3)
    assert cost.fixed_s == pytest.approx(fixed, rel=1e-2, abs=1e-4)
    assert cost.duration_s(10) == pytest.approx(fixed + 10 * each, rel=1e-2)


def test_batches_of_one_size_say_nothing_of_the_slope() -> None:
    cost = CostEstimate()

    for _ in range(5):
        cost.add(8, 0.01)

    assert 0.0 == cost.item_s
    assert cost.fixed_s == pytest.approx(0.01)


def test_nothing_is_known_before_the_first_batch() -> None:
    cost = CostEstimate()

    assert not cost.is_known
    assert 0.0 == cost.fixed_s
    assert 0.0 == AdaptiveWait(0.1).due_at(1, 0.0, 0.0)


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 10)), max_size=30))
def test_costs_are_never_negative(batches: list[tuple[int, float]]) -> None:
    cost = CostEstimate()

    for size, duration_s in batches:
        cost.add(size, duration_s)

    assert cost.fixed_s >= 0
    assert cost.item_s >= 0


def test_the_costs_follow_a_model_that_becomes_slower() -> None:
    cost = CostEstimate()
    for number in range(200):
        cost.add(1 + number % 9, 0.001)

    for number in range(300):
        cost.add(1 + number % 9, 0.1)

    assert cost.duration_s(5) == pytest.approx(0.1, rel=0.01)


def test_items_that_meet_nobody_never_make_one_wait() -> None:
    wait = AdaptiveWait(0.1)
    wait.executed(1, 1.0)

    for number in range(100):
        wait.arrived(number * 0.001, is_busy=False)

    assert 0.0 == wait.patience_s(1)


def test_a_wait_in_vain_makes_the_next_shorter_until_there_is_none() -> None:
    wait = AdaptiveWait(1.0)
    wait.executed(1, 0.01)
    wait.arrived(0.0, is_busy=True)
    wait.arrived(0.001, is_busy=True)
    assert wait.patience_s(1) > 0

    for _ in range(5):
        wait.missed(wait.patience_s(1))

    assert 0.0 == wait.patience_s(1)


def test_waiting_never_breaks_the_target() -> None:
    wait = AdaptiveWait(0.02)
    wait.executed(1, 0.015)
    for number in range(50):
        wait.arrived(number * 1e-5, is_busy=True)

    due = wait.due_at(1, oldest=10.0, newest=10.0)

    assert due == pytest.approx(10.0 + 0.02 - 0.015)


def simulate(
    policy: WaitPolicy, clients: int, think: Callable[[], float], *, seconds: float = 5.0
) -> tuple[float, float]:
    """Return answers a second and their mean latency: clients who ask, wait for the answer, and think."""
    queue: BatchQueue[BatchItem] = BatchQueue(BatchSettings(64, policy))
    events: list[tuple[float, int, str, list[BatchItem]]] = []
    latencies: list[float] = []
    number = now = 0.0

    def plan(at: float, kind: str, batch: list[BatchItem]) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (at, int(number), kind, batch))

    for _ in range(clients):
        plan(think(), "ask", [])
    while events and now < seconds:
        now, _, kind, batch = heapq.heappop(events)
        if kind == "ask":
            queue.add(BatchItem(None, arrived_at=now))
        elif kind == "done":
            queue.finish(len(batch), FIXED_S + ITEM_S * len(batch), now)
            latencies += [now - item.arrived_at for item in batch]
            for _item in batch:
                plan(now + think(), "ask", [])
        while (taken := queue.take(now)) is not None:
            plan(now + FIXED_S + ITEM_S * len(taken.batch), "done", taken.batch)
        if queue.wake_at < float("inf"):
            plan(max(queue.wake_at, now), "look", [])
    return len(latencies) / seconds, sum(latencies) / len(latencies)


def both(clients: int, think_s: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Simulate the same clients with the wait that tunes itself, and without any."""

    def think() -> Callable[[], float]:
        chance = random.Random(clients)
        return lambda: chance.expovariate(1 / think_s)

    seconds = 20.0 if clients * FIXED_S < think_s else 0.5
    return (
        simulate(AdaptiveWait(0.1), clients, think(), seconds=seconds),
        simulate(FixedWait(0.0), clients, think(), seconds=seconds),
    )


def test_a_client_who_is_alone_is_answered_as_fast_as_without_a_wait() -> None:
    (_, tuned_s), (_, at_once_s) = both(1, 0.0002)

    assert tuned_s == pytest.approx(at_once_s, rel=1e-6)


@pytest.mark.parametrize("think_s", [0.0001, 0.001, 0.01, 0.1])
@pytest.mark.parametrize("clients", [2, 8, 64])
def test_tuning_is_nowhere_much_worse_than_no_wait(clients: int, think_s: float) -> None:
    (tuned, tuned_s), (at_once, at_once_s) = both(clients, think_s)

    assert tuned >= 0.95 * at_once
    assert tuned_s <= 1.1 * at_once_s + 0.0005


def test_many_quick_clients_share_batches_that_are_almost_full() -> None:
    (tuned, _), (at_once, _) = both(64, 0.0003)

    assert tuned > 1.2 * at_once
