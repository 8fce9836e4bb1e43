"""`max_ongoing_requests` changes while requests are in work."""

from __future__ import annotations

import threading

from trygon.dataplane.slots import Slots
from trygon.dataplane.user_callable import UserCallable


def test_more_threads_work_at_once_after_resizing_and_earlier_work_is_finished() -> None:
    user = UserCallable("Main", 1)
    door = threading.Event()
    first = [user.submit(door.wait, 10) for _ in range(2)]
    user.resize(3)
    meeting = threading.Barrier(3)

    together = [user.submit(meeting.wait, 10) for _ in range(3)]

    assert {0, 1, 2} == {one.result(10)[0] for one in together}
    door.set()
    assert [True, True] == [one.result(10)[0] for one in first]
    user.threads.shutdown()


def test_slots_above_a_smaller_limit_are_left_as_their_requests_end() -> None:
    slots = Slots(3, lambda: None)
    taken = [slots.take() for _ in range(3)]

    slots.limit = 1
    assert slots.is_full
    taken[0].leave()
    taken[1].leave()
    assert slots.is_full
    taken[2].leave()

    assert not slots.is_full
