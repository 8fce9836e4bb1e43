"""Keys take turns, priorities go first, and nothing is lost, invented or done twice."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trygon.dataplane import fairness
from trygon.dataplane.fairness import MAX_KEYS, FairQueue, Ticket


class Request:
    def __init__(self, key: str = "", priority: int = 0, number: int = 0) -> None:
        self.ticket: Ticket = (priority, key)
        self.number = number

    def __repr__(self) -> str:
        return f"{self.ticket[1]}{self.number}"


def filled(text: str) -> FairQueue[Request]:
    """Return a queue of requests such as "a a b", in this order."""
    queue: FairQueue[Request] = FairQueue()
    seen: Counter[str] = Counter()
    for key in text.split():
        queue[Request(key, number=seen[key])] = 0.0
        seen[key] += 1
    return queue


def drained(queue: FairQueue[Request]) -> str:
    return " ".join(repr(queue.popitem(last=False)[0]) for _ in range(len(queue)))


def test_one_key_is_served_in_the_order_of_arrival() -> None:
    assert "a0 a1 a2" == drained(filled("a a a"))


def test_keys_take_turns_however_many_one_of_them_sends() -> None:
    assert "a0 b0 c0 a1 b1 a2 a3" == drained(filled("a a a a b b c"))


def test_a_newcomer_of_another_key_waits_for_one_of_each() -> None:
    queue = filled("a a a a")
    queue.popitem(last=False)
    queue[Request("b")] = 0.0

    assert "a1 b0 a2 a3" == drained(queue)


def test_greater_priorities_go_first_and_keys_take_turns_in_each() -> None:
    queue: FairQueue[Request] = FairQueue()
    for number, (key, priority) in enumerate([("a", 0), ("a", 5), ("b", 5), ("a", 5), ("c", -1)]):
        queue[Request(key, priority, number)] = 0.0

    assert "a1 b2 a3 a0 c4" == drained(queue)


def test_more_keys_than_are_kept_apart_share_one_turn() -> None:
    queue: FairQueue[Request] = FairQueue()
    for number in range(MAX_KEYS + 50):
        queue[Request(f"key{number}.", number=number)] = 0.0

    order = [queue.popitem(last=False)[0] for _ in range(len(queue))]

    assert [request.number for request in order[: MAX_KEYS + 1]] == list(range(MAX_KEYS + 1))
    assert MAX_KEYS + 50 == len(set(order))


def test_who_goes_is_the_newest_of_the_longest_queue_and_not_the_small_one() -> None:
    queue = filled("a a a b")

    assert "a2" == repr(queue.victim_for((0, "b")))
    assert "a2" == repr(queue.victim_for((0, "new")))
    assert queue.victim_for((0, "a")) is None


def test_the_less_important_go_first() -> None:
    queue = filled("a a a")
    low = Request("b", -1)
    queue[low] = 0.0

    assert low is queue.victim_for((0, "a"))
    assert queue.victim_for((-2, "c")) is None
    assert queue.victim_for((-1, "b")) is None
    assert FairQueue[Request]().victim_for((0, "a")) is None


@pytest.mark.parametrize(
    "ticket, ahead", [((0, "a"), 5), ((0, "b"), 4), ((0, "c"), 2), ((1, "c"), 0), ((-1, "c"), 5)]
)
def test_what_starts_before_a_newcomer_is_known(ticket: Ticket, ahead: int) -> None:
    assert ahead == filled("a a a a b").num_ahead(ticket)


def test_it_is_a_dictionary_to_its_users() -> None:
    queue = filled("a b a")
    first, second, third = queue
    queue[first] = 0.0

    queue.pop(second, None)
    queue.pop(second, None)

    assert [first, third] == list(queue)
    assert (third, 0.0) == queue.popitem(last=True)
    queue.clear()
    assert not queue
    with pytest.raises(KeyError):
        queue.popitem(last=False)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, the queue holds what was put in and not taken out, each key in order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Request] = FairQueue()
        self.waiting: dict[Request, None] = {}
        self.number = 0

    @rule(key=st.sampled_from("abcdef"), priority=st.integers(-1, 1))
    def add(self, key: str, priority: int) -> None:
        self.number += 1
        request = Request(key, priority, self.number)
        self.queue[request] = 0.0
        self.waiting[request] = None

    @rule()
    def take(self) -> None:
        if not self.waiting:
            return
        taken, _ = self.queue.popitem(last=False)
        assert taken.ticket[0] == max(request.ticket[0] for request in self.waiting)
        same = [request for request in self.waiting if request.ticket == taken.ticket]
        assert taken is same[0]
        del self.waiting[taken]

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        if self.waiting:
            request = data.draw(st.sampled_from(list(self.waiting)))
            self.queue.pop(request, None)
            del self.waiting[request]

    @rule()
    def evict(self) -> None:
        if not self.waiting:
            return
        victim = self.queue.newest_of_longest()
        lowest = min(request.ticket[0] for request in self.waiting)
        lengths = Counter(request.ticket[1] for request in self.waiting if request.ticket[0] == lowest)
        assert lengths[victim.ticket[1]] == max(lengths.values())
        assert victim is [request for request in self.waiting if request.ticket == victim.ticket][-1]

    @invariant()
    def holds_what_waits(self) -> None:
        assert list(self.waiting) == list(self.queue)
        assert len(self.waiting) == len(self.queue)


TestAnyOrder = AnyOrder.TestCase


def test_the_overflow_of_keys_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "MAX_KEYS", 1)

    assert "a0 b0 a1 c0 b1" == drained(filled("a a b c b"))
