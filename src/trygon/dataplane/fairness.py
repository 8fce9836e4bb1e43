"""A queue in which tenants take turns, and more important requests go first. Pure.

Among requests of one priority every key (a tenant) has a queue of its own, oldest first, and the keys take turns: deficit
round robin (Shreedhar and Varghese, 1995) whose packets all cost one. A key with one request waits for one
request of each other key, however many of them those have. Every step takes constant time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["MAX_KEYS", "PLAIN", "CallQueue", "FairQueue", "Ticket", "Ticketed"]

#: Keys that have a queue of their own; the requests of all others share one. A client that makes up a key for each
#: request gets no more than that.
MAX_KEYS = 1024

_C = TypeVar("_C")

Ticket = tuple[int, str]
"""Priority (greater goes first) and key of a request."""

PLAIN: Ticket = (0, "")
"""Of a request that says neither."""


class Ticketed(Protocol):
    """What waits."""

    @property
    def ticket(self) -> Ticket:
        """Where it stands."""


C = TypeVar("C", bound=Ticketed)


class CallQueue(Protocol[_C]):
    """What a pool asks of its queue; an OrderedDict is one."""

    def __len__(self) -> int:
        """Return how many wait."""

    def __iter__(self) -> Iterator[_C]:
        """Yield what waits."""

    def __setitem__(self, call: _C, since: float, /) -> None:
        """Let `call` wait, as it does since a moment that the queue keeps for it."""

    def pop(self, call: _C, default: None, /) -> float | None:
        """Forget `call` if it waits."""

    def popitem(self, last: bool = ...) -> tuple[_C, float]:
        """Take the next one out, with ``last=False``, and since when it waits."""

    def clear(self) -> None:
        """Forget everything."""


class _Class(Generic[C]):
    """The requests of one priority."""

    __slots__ = ("by_length", "longest", "num", "queues")

    def __init__(self) -> None:
        #: Oldest first by key; the key whose turn it is comes first.
        self.queues: OrderedDict[str, OrderedDict[C, None]] = OrderedDict()
        #: Keys by the length of their queues, so that the longest is found at once.
        self.by_length: dict[int, dict[str, None]] = {}
        self.longest = 0
        self.num = 0

    def key_of(self, key: str) -> str:
        """Return the key under which a newcomer waits."""
        return key if key in self.queues or len(self.queues) < MAX_KEYS else ""

    def length_of(self, key: str) -> int:
        """Return how many of a newcomer's key wait."""
        return len(self.queues.get(self.key_of(key), ()))

    def add(self, key: str, call: C) -> None:
        queue = self.queues.setdefault(key, OrderedDict())
        queue[call] = None
        self.num += 1
        self._move(key, len(queue) - 1, len(queue))

    def discard(self, key: str, call: C) -> None:
        queue = self.queues[key]
        del queue[call]
        self.num -= 1
        self._move(key, len(queue) + 1, len(queue))
        if not queue:
            del self.queues[key]

    def next(self) -> tuple[str, C]:
        """Take the oldest request of the key whose turn it is."""
        key, queue = next(iter(self.queues.items()))
        call = next(iter(queue))
        self.discard(key, call)
        if queue:
            self.queues.move_to_end(key)
        return key, call

    def newest_of_longest(self) -> tuple[str, C]:
        """Return the newest request of the key that has most."""
        key = next(reversed(self.by_length[self.longest]))
        return key, next(reversed(self.queues[key]))

    def _move(self, key: str, before: int, after: int) -> None:
        by_length = self.by_length
        if before:
            same = by_length[before]
            del same[key]
            if not same:
                del by_length[before]
        if after:
            by_length.setdefault(after, {})[key] = None
        # Lengths change by one, so the longest does too.
        if after > self.longest or (before == self.longest and before not in by_length):
            self.longest = after


class FairQueue(Generic[C]):
    """Requests that wait, by priority and then by turns of their keys; an OrderedDict to its users."""

    __slots__ = ("_classes", "_places", "_priorities")

    def __init__(self) -> None:
        #: Where each request waits, and since when: the priority and the key under which it was put.
        self._places: dict[C, tuple[int, str, float]] = {}
        self._classes: dict[int, _Class[C]] = {}
        #: Priorities of which something waits, greatest first. Few, since an operator names them.
        self._priorities: list[int] = []

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[C]:
        """Yield in order of arrival."""
        return iter(self._places)

    def __setitem__(self, call: C, since: float, /) -> None:
        """Put `call` behind the others of its key."""
        if call in self._places:
            return
        priority, key = call.ticket
        members = self._classes.get(priority)
        if members is None:
            members = self._classes[priority] = _Class()
            self._priorities = sorted(self._classes, reverse=True)
        key = members.key_of(key)
        self._places[call] = (priority, key, since)
        members.add(key, call)

    def pop(self, call: C, default: None = None, /) -> float | None:
        """Forget `call` if it waits here; return since when it did."""
        place = self._places.pop(call, None)
        if place is None:
            return default
        priority, key, since = place
        self._classes[priority].discard(key, call)
        self._tidy(priority)
        return since

    def popitem(self, last: bool = False) -> tuple[C, float]:
        """Take the next request out.

        Raises:
            KeyError: Nothing waits.
        """
        if not self._places:
            raise KeyError("nothing waits")
        if last:
            call = self.newest_of_longest()
            since = self._places[call][2]
            self.pop(call)
            return call, since
        priority = self._priorities[0]
        _, call = self._classes[priority].next()
        _, _, since = self._places.pop(call)
        self._tidy(priority)
        return call, since

    def clear(self) -> None:
        """Forget everything."""
        self._places.clear()
        self._classes.clear()
        self._priorities = []

    def newest_of_longest(self) -> C:
        """Return the newest request of the key that has most, among those of the least important priority."""
        _, call = self._classes[self._priorities[-1]].newest_of_longest()
        return call

    def victim_for(self, ticket: Ticket) -> C | None:
        """Return who is to go so that a newcomer may wait in a full queue; None when that is the newcomer itself."""
        if not self._priorities:
            return None
        priority, key = ticket
        least = self._priorities[-1]
        if priority < least:
            return None
        if priority == least:
            members = self._classes[least]
            if members.length_of(key) >= members.longest:
                return None
        return self.newest_of_longest()

    def num_ahead(self, ticket: Ticket) -> int:
        """Return how many requests start before a newcomer at most, if nobody else comes."""
        priority, key = ticket
        more_important = sum(self._classes[other].num for other in self._priorities if other > priority)
        members = self._classes.get(priority)
        if members is None:
            return more_important
        # In each turn up to its own, every key sends one.
        turns = (members.length_of(key) + 1) * len(members.queues)
        return more_important + min(turns, members.num)

    def _tidy(self, priority: int) -> None:
        if not self._classes[priority].queues:
            del self._classes[priority]
            self._priorities = sorted(self._classes, reverse=True)
