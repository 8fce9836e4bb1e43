"""Requests that wait at a desk, by kind; and those that are under way and want a replica without other such guests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from trygon.dataplane.links import Call, ReplicaLink
from trygon.dataplane.tracked import Tracked

__all__ = ["Guests", "Held"]


class Held:
    """What waits for a verdict or for a replica without other guests, oldest first.

    By kind, because one verdict is for all of it: a thousand that wait must not be looked at for each answer of
    another.
    """

    __slots__ = ("_queues", "count")

    def __init__(self) -> None:
        #: No queue is empty.
        self._queues: dict[bytes, OrderedDict[Tracked, None]] = {}
        #: How many wait, of all kinds.
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def kinds(self) -> list[bytes]:
        """Return the kinds of which any waits."""
        return list(self._queues)

    def of(self, kind: bytes) -> OrderedDict[Tracked, None] | None:
        """Return what waits of one kind, or None."""
        return self._queues.get(kind)

    def add(self, tracked: Tracked, *, first: bool = False) -> None:
        """Let a request wait, behind or before the others of its kind."""
        queue = self._queues.setdefault(tracked.kind, OrderedDict())
        queue[tracked] = None
        queue.move_to_end(tracked, last=not first)
        self.count += 1

    def discard(self, tracked: Tracked) -> None:
        """Let a request wait no longer, if it does."""
        queue = self._queues.get(tracked.kind)
        if queue is not None and tracked in queue:
            del queue[tracked]
            self.count -= 1
            if not queue:
                del self._queues[tracked.kind]

    def take_all(self) -> list[Call]:
        """Return what waits, and let nothing wait."""
        held: list[Call] = [tracked for queue in self._queues.values() for tracked in queue]
        self._queues.clear()
        self.count = 0
        return held

    def dues(self, now: float) -> Iterator[float]:
        """Yield when replays have waited long enough: the first of each kind, the others were lost no earlier."""
        for queue in self._queues.values():
            until = next((tracked.until for tracked in queue if tracked.is_replay), 0.0)
            if until > now:
                yield until


class Guests:
    """Trials and replays under way without an answer, and the replicas that have one.

    A trial is alone on its replica, or it would take a replay with it, which is not sent a third time.
    """

    __slots__ = ("_links",)

    def __init__(self) -> None:
        self._links: dict[Tracked, ReplicaLink] = {}

    def add(self, tracked: Tracked, link: ReplicaLink) -> None:
        """Take note that a trial or a replay is sent over `link`."""
        self._links[tracked] = link

    def discard(self, tracked: Tracked) -> bool:
        """Forget one that is answered or lost; return whether it was a guest."""
        return self._links.pop(tracked, None) is not None

    def without_any(self, links: list[ReplicaLink]) -> list[ReplicaLink]:
        """Return the replicas that a trial may be sent to: those without any guest."""
        taken = set(self._links.values())
        return [link for link in links if link not in taken]

    def without_trials(self, links: list[ReplicaLink]) -> list[ReplicaLink]:
        """Return the replicas that a replay may be sent to: those without a trial."""
        taken = {link for guest, link in self._links.items() if guest.is_trial}
        return [link for link in links if link not in taken]

    def quiet(self, links: list[ReplicaLink]) -> list[ReplicaLink]:
        """Return the replicas without guests, if any of them has room: a newcomer may be poison too."""
        if not self._links:
            return links
        taken = set(self._links.values())
        quiet = [link for link in links if link not in taken and link.has_room and not link.is_suspect]
        return quiet or links
