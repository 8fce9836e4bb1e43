"""Deadlines of many connections without a timer for each: slots of equal width, emptied by one sweep.

An item that moves its deadline later is not moved here: it is visited at the old time and asks again.
So a keep-alive connection costs nothing for each request, and a sweep costs what has expired.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["TimerWheel"]

Item = TypeVar("Item")


class TimerWheel(Generic[Item]):
    """Items in slots of `width_s`; each stands in at most one."""

    __slots__ = ("_next", "_slots", "_where", "_width")

    def __init__(self, width_s: float, now: float) -> None:
        self._width = width_s
        self._slots: dict[int, dict[Item, None]] = {}
        self._where: dict[Item, int] = {}
        #: Slots before it have been swept.
        self._next = int(now / width_s)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, item: Item) -> bool:
        return item in self._where

    def add(self, item: Item, deadline: float) -> None:
        """Visit `item` at the first sweep after `deadline`, or earlier if it already waits for an earlier one."""
        # An item is visited when its slot has passed whole, so never too early.
        slot = max(int(deadline / self._width), self._next)
        held = self._where.get(item)
        if held is not None:
            if held <= slot:
                return
            del self._slots[held][item]
        self._where[item] = slot
        self._slots.setdefault(slot, {})[item] = None

    def discard(self, item: Item) -> None:
        """Forget `item`."""
        held = self._where.pop(item, None)
        if held is not None:
            del self._slots[held][item]

    def sweep(self, now: float) -> list[Item]:
        """Remove and return the items whose slot has passed."""
        end = int(now / self._width)
        if end <= self._next:
            return []
        if end - self._next > len(self._slots):
            # The loop slept for long: look at the slots there are, not at each second.
            due = sorted(slot for slot in self._slots if slot < end)
        else:
            due = list(range(self._next, end))
        self._next = end
        expired: list[Item] = []
        for slot in due:
            expired.extend(self._slots.pop(slot, ()))
        for item in expired:
            del self._where[item]
        return expired
