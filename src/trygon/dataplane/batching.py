"""Which waiting items go together, and when. Pure.

Items wait in groups that may share a batch: one group for each multiplexed model id (and shape of arguments).
A group is due when it is full, or when its oldest item has waited as long as the wait policy allows. Of the due
groups the one with the oldest item goes first, in the order the items came, while fewer than
`max_concurrent_batches` are running. An item whose deadline has passed is never handed out.

`dataplane.batcher` keeps the time and runs what is handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["BatchItem", "BatchQueue", "BatchSettings", "FixedWait", "Taken", "WaitPolicy"]

_NEVER = float("inf")


class WaitPolicy(Protocol):
    """Decides how long a group that is not full waits for more."""

    def arrived(self, now: float, *, is_busy: bool) -> None:
        """Take note of an item; `is_busy` says whether others wait or run."""
        ...

    def executed(self, size: int, duration_s: float) -> None:
        """Take note of how long a batch of `size` items ran."""
        ...

    def missed(self, waited_s: float) -> None:
        """Take note of a group that waited `waited_s` for more in vain."""
        ...

    def due_at(self, size: int, oldest: float, newest: float) -> float:
        """Return when a group of `size` items goes.

        Args:
            size: Items that wait.
            oldest: When the first of them came.
            newest: When the last of them came, or a place for their batch became free if that is later.
        """
        ...


class FixedWait:
    """The oldest item waits `timeout_s` seconds at most."""

    __slots__ = ("timeout_s",)

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s

    def arrived(self, now: float, *, is_busy: bool) -> None:
        """Nothing is learned."""

    def executed(self, size: int, duration_s: float) -> None:
        """Nothing is learned."""

    def missed(self, waited_s: float) -> None:
        """Nothing is learned."""

    def due_at(self, size: int, oldest: float, newest: float) -> float:
        """Return the time of the oldest item and the timeout."""
        return oldest + self.timeout_s


class BatchItem:
    """One caller's item.

    Attributes:
        value: What `size_fn` measures.
        group: Items of equal groups may share a batch.
        arrived_at: When it came.
        deadline: When nobody waits for its answer any more; infinity is never.
    """

    __slots__ = ("arrived_at", "deadline", "group", "value")

    def __init__(
        self, value: Any, group: Hashable = "", *, arrived_at: float, deadline: float = _NEVER
    ) -> None:
        self.value = value
        self.group = group
        self.arrived_at = arrived_at
        self.deadline = deadline


@dataclass
class BatchSettings:
    """What may be changed while items wait; it counts from the next decision on."""

    max_batch_size: int = 10
    wait: WaitPolicy = field(default_factory=lambda: FixedWait(0.01))
    max_concurrent_batches: int = 1
    #: Measures a list of values instead of its length; user code, may raise.
    size_fn: Callable[[list[Any]], int] | None = None


ItemT = TypeVar("ItemT", bound=BatchItem)


@dataclass
class Taken(Generic[ItemT]):
    """What a look at the queue gave: items that run together, and items that came too late to run."""

    batch: list[ItemT]
    expired: list[ItemT]


class _Group(Generic[ItemT]):
    """Items that may share a batch, oldest first."""

    __slots__ = ("is_full", "items", "newest")

    def __init__(self) -> None:
        #: A dict, so that a caller who leaves is taken out at once.
        self.items: dict[ItemT, None] = {}
        self.is_full = False
        self.newest = 0.0

    @property
    def oldest(self) -> float:
        return next(iter(self.items)).arrived_at


class BatchQueue(Generic[ItemT]):
    """The waiting items of one batched function."""

    __slots__ = ("_groups", "_num_waiting", "_open_since", "num_running", "settings")

    def __init__(self, settings: BatchSettings) -> None:
        self.settings = settings
        #: Groups with items; an empty one is dropped.
        self._groups: dict[Hashable, _Group[ItemT]] = {}
        self._num_waiting = 0
        #: Since when one more batch may run: a wait before that was for the others to end, not for more items.
        self._open_since = 0.0
        #: Batches handed out and not done.
        self.num_running = 0

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[ItemT]:
        return (item for group in self._groups.values() for item in group.items)

    def validate(self) -> None:
        """Check the invariants; for tests."""
        assert self._num_waiting == sum(len(group.items) for group in self._groups.values())
        assert all(group.items for group in self._groups.values())
        assert self.num_running >= 0
        for key, group in self._groups.items():
            times = [item.arrived_at for item in group.items]
            assert times == sorted(times)
            assert all(item.group == key for item in group.items)

    def add(self, item: ItemT) -> bool:
        """Let an item wait; True if its group is full now.

        Raises:
            RuntimeError: `size_fn` says that the item alone is larger than a batch may be.
            Exception: Whatever `size_fn` raised; the item does not wait.
        """
        settings = self.settings
        group = self._groups.get(item.group)
        if settings.size_fn is None:
            is_full = (len(group.items) if group is not None else 0) + 1 >= settings.max_batch_size
        else:
            is_full = self._is_full_with(item, group, settings.size_fn)
        settings.wait.arrived(item.arrived_at, is_busy=bool(self._num_waiting or self.num_running))
        if group is None:
            group = self._groups[item.group] = _Group()
        group.items[item] = None
        group.newest = item.arrived_at
        group.is_full = is_full
        self._num_waiting += 1
        return is_full

    def _is_full_with(
        self, item: ItemT, group: _Group[ItemT] | None, size_fn: Callable[[list[Any]], int]
    ) -> bool:
        limit = self.settings.max_batch_size
        alone = size_fn([item.value])
        if alone > limit:
            raise RuntimeError(
                f"batch_size_fn measures this item alone as {alone!r}, and max_batch_size is {limit!r}; "
                "send smaller items or raise max_batch_size"
            )
        if group is None:
            return bool(alone >= limit)
        return bool(size_fn([*(each.value for each in group.items), item.value]) >= limit)

    def remove(self, item: ItemT) -> None:
        """Forget an item whose caller left; one that was handed out is not here any more."""
        group = self._groups.get(item.group)
        if group is None or item not in group.items:
            return
        del group.items[item]
        self._num_waiting -= 1
        self._refresh(item.group, group)

    def take(self, now: float) -> Taken[ItemT] | None:
        """Hand out the batch that is due, or None; call again until it is None.

        The caller says `finish` for each batch that has items; with only expired ones there is nothing to run.
        """
        if self.num_running >= self.settings.max_concurrent_batches:
            return None
        key = self._due_group(now)
        if key is None:
            return None
        taken = self._take_from(key, now)
        if taken.batch:
            self.num_running += 1
        return taken

    def finish(self, size: int, duration_s: float, now: float) -> None:
        """Take note that a batch of `size` items is done, after `duration_s` seconds."""
        if self.num_running >= self.settings.max_concurrent_batches:
            self._open_since = now
        self.num_running -= 1
        self.settings.wait.executed(size, duration_s)

    def due_at(self, item: ItemT) -> float:
        """Return when the group of a waiting item goes if nothing else happens; infinity is not before one ends."""
        if self.num_running >= self.settings.max_concurrent_batches:
            return _NEVER
        return self._due_at(self._groups[item.group])

    @property
    def wake_at(self) -> float:
        """When `take` may give something though nothing happened until then; infinity is never."""
        if not self._groups or self.num_running >= self.settings.max_concurrent_batches:
            return _NEVER
        return min(self._due_at(group) for group in self._groups.values())

    # ----

    def _due_at(self, group: _Group[ItemT]) -> float:
        size = len(group.items)
        # The size may have been changed since the last item came.
        if group.is_full or (self.settings.size_fn is None and size >= self.settings.max_batch_size):
            return 0.0
        return self.settings.wait.due_at(size, group.oldest, max(group.newest, self._open_since))

    def _due_group(self, now: float) -> Hashable | None:
        chosen, oldest = None, _NEVER
        for key, group in self._groups.items():
            if self._due_at(group) <= now and group.oldest < oldest:
                chosen, oldest = key, group.oldest
        return chosen

    def _take_from(self, key: Hashable, now: float) -> Taken[ItemT]:
        group = self._groups[key]
        taken: Taken[ItemT] = Taken([], [])
        was_full = self._due_at(group) == 0.0
        for item in group.items:
            if item.deadline <= now:
                taken.expired.append(item)
            elif self._fits(taken.batch, item):
                taken.batch.append(item)
            else:
                break
        for item in (*taken.batch, *taken.expired):
            del group.items[item]
        self._num_waiting -= len(taken.batch) + len(taken.expired)
        if not was_full and taken.batch:
            self.settings.wait.missed(max(now - max(group.newest, self._open_since), 0.0))
        self._refresh(key, group)
        return taken

    def _fits(self, batch: list[ItemT], item: ItemT) -> bool:
        limit, size_fn = self.settings.max_batch_size, self.settings.size_fn
        if size_fn is None:
            return len(batch) < limit
        if not batch:
            # Alone it was measured when it came; a limit that was lowered since must not keep it for ever.
            return True
        try:
            return bool(size_fn([*(each.value for each in batch), item.value]) <= limit)
        except Exception:  # noqa: BLE001 - user code; what was measured so far goes without this item
            return False

    def _refresh(self, key: Hashable, group: _Group[ItemT]) -> None:
        """Drop an empty group, and look again whether what is left is full."""
        if not group.items:
            del self._groups[key]
            return
        settings = self.settings
        if settings.size_fn is None:
            group.is_full = len(group.items) >= settings.max_batch_size
            return
        try:
            group.is_full = settings.size_fn([item.value for item in group.items]) >= settings.max_batch_size
        except Exception:  # noqa: BLE001 - user code; what cannot be measured goes when it is due
            group.is_full = False
