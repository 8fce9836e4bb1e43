"""The places of a replica follow what it learns from its requests."""

from __future__ import annotations

from trygon.dataplane.concurrency import GradientLimit
from trygon.dataplane.tuned_slots import TunedSlots


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now


def test_a_replica_that_is_never_slower_takes_more_and_says_so() -> None:
    clock, freed, limits = Clock(), list[int](), list[int]()
    slots = TunedSlots(GradientLimit(maximum=20), lambda: freed.append(1), limits.append, clock.time)
    assert 4 == slots.limit

    for _ in range(100):
        taken = [slots.take() for _ in range(slots.limit)]
        clock.now += 0.02
        for slot in taken:
            slot.leave()
            slot.leave()
        slots.limit = limits[-1] if limits else slots.limit

    assert limits[-1] > 4
    assert 0 == slots.ongoing
    assert len(freed) > 400
