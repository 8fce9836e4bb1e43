"""Which models a cache loads, keeps and gives up: pure, told what happens and what the time is.

A model that somebody has leased, or that is pinned, is never given up. So the bounds may be passed by what is leased
and pinned, and by no more: whenever there is more than the bounds allow, nothing is left that could be given up.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from enum import StrEnum

__all__ = ["MAX_FAILURES", "Admission", "CachePolicy"]

#: Failed loads that are remembered; names come from outside, so there may be any number of them.
MAX_FAILURES = 1024


class Admission(StrEnum):
    """What becomes of somebody who asks for a model."""

    HELD = "held"  #: the model is here, and leased from now on
    WAIT = "wait"  #: it is being loaded, or will be
    FAILED = "failed"  #: its last load failed a moment ago


class _Entry:
    __slots__ = ("is_loading", "is_ready", "leases", "size", "waiters")

    def __init__(self) -> None:
        self.is_loading = False
        self.is_ready = False
        #: Uses that have not ended; more than 0 only when ready.
        self.leases = 0
        #: Bytes; an estimate while loading.
        self.size = 0
        #: Who waits for the load; each becomes a lease.
        self.waiters = 0


class CachePolicy:
    """The state of one cache; the shell asks before, and reports after, each load and use."""

    def __init__(
        self,
        *,
        max_models: int | None,
        max_bytes: int | None,
        max_parallel_loads: int,
        failure_ttl_s: float,
        pin: Iterable[str] = (),
    ) -> None:
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._max_parallel_loads = max_parallel_loads
        self._failure_ttl_s = failure_ttl_s
        self._pinned = frozenset(pin)
        self._entries: dict[str, _Entry] = {}
        #: Ready models that nobody has leased and that are not pinned, the longest unused first.
        self._idle: OrderedDict[str, None] = OrderedDict()
        #: Models to load, oldest first; may name some that nobody waits for any more.
        self._queue: deque[str] = deque()
        #: Until when a failed load is not tried again.
        self._failures: OrderedDict[str, float] = OrderedDict()
        self.num_loading = 0
        self.num_ready = 0
        #: Bytes of ready models.
        self.held_bytes = 0
        #: Bytes that loads under way are expected to need.
        self._reserved_bytes = 0

    # ---- uses

    def admit(self, key: str, now: float) -> Admission:
        """Lease `key`, or count somebody who waits for it."""
        entry = self._entries.get(key)
        if entry is not None and entry.is_ready:
            entry.leases += 1
            self._idle.pop(key, None)
            return Admission.HELD
        if entry is None:
            until = self._failures.get(key)
            if until is not None and now < until:
                return Admission.FAILED
            entry = self._entries[key] = _Entry()
            self._queue.append(key)
        entry.waiters += 1
        return Admission.WAIT

    def leave(self, key: str) -> None:
        """Count one less who waits; a load that was not begun is dropped with the last."""
        entry = self._entries[key]
        entry.waiters -= 1
        if not entry.waiters and not entry.is_loading:
            del self._entries[key]
            self._queue.remove(key)

    def release(self, key: str) -> list[str]:
        """End one lease; return what is to be unloaded."""
        entry = self._entries[key]
        entry.leases -= 1
        if not entry.leases and key not in self._pinned:
            self._idle[key] = None
        return self._make_room()

    # ---- loads

    def next_load(self) -> tuple[str, list[str]] | None:
        """Begin a load if one may; return the model, and what is to be unloaded before."""
        if not self._queue or self.num_loading >= self._max_parallel_loads:
            return None
        key = self._queue.popleft()
        entry = self._entries[key]
        entry.is_loading = True
        # Nobody knows yet how large it is; the mean of those that are here is the best guess.
        entry.size = self.held_bytes // self.num_ready if self.num_ready else 0
        self.num_loading += 1
        self._reserved_bytes += entry.size
        return key, self._make_room()

    def loaded(self, key: str, size: int) -> list[str]:
        """Take a loaded model of `size` bytes; return what is to be unloaded."""
        entry = self._end_load(key)
        entry.is_ready = True
        entry.size = size
        entry.leases, entry.waiters = entry.waiters, 0
        self.num_ready += 1
        self.held_bytes += size
        self._failures.pop(key, None)
        if not entry.leases and key not in self._pinned:
            self._idle[key] = None
        return self._make_room()

    def failed(self, key: str, now: float) -> list[str]:
        """Hear that a load failed; return the models whose failures need not be remembered any more."""
        self._end_load(key)
        del self._entries[key]
        forgotten = []
        while self._failures:
            oldest, until = next(iter(self._failures.items()))
            if now < until and len(self._failures) < MAX_FAILURES:
                break
            del self._failures[oldest]
            forgotten.append(oldest)
        self._failures.pop(key, None)
        self._failures[key] = now + self._failure_ttl_s
        return [name for name in forgotten if name != key]

    def _end_load(self, key: str) -> _Entry:
        entry = self._entries[key]
        entry.is_loading = False
        self.num_loading -= 1
        self._reserved_bytes -= entry.size
        return entry

    def _make_room(self) -> list[str]:
        """Give up the longest unused models until the bounds hold, or none is left."""
        victims = []
        while self._idle and self._is_over():
            key, _ = self._idle.popitem(last=False)
            self.held_bytes -= self._entries.pop(key).size
            self.num_ready -= 1
            victims.append(key)
        return victims

    def _is_over(self) -> bool:
        if self._max_models is not None and self.num_ready + self.num_loading > self._max_models:
            return True
        return self._max_bytes is not None and self.held_bytes + self._reserved_bytes > self._max_bytes

    # ---- what there is

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def keys(self) -> list[str]:
        """Names of the models that are ready."""
        return [key for key, entry in self._entries.items() if entry.is_ready]

    @property
    def leased_bytes(self) -> int:
        """Bytes of models in use."""
        return sum(entry.size for entry in self._entries.values() if entry.leases)

    @property
    def num_leased(self) -> int:
        """Models in use."""
        return sum(entry.leases > 0 for entry in self._entries.values())

    @property
    def num_waiting(self) -> int:
        """Uses that wait for a load."""
        return sum(entry.waiters for entry in self._entries.values())

    def validate(self) -> None:
        """Raise AssertionError when an invariant is broken; for tests."""
        ready = [entry for entry in self._entries.values() if entry.is_ready]
        assert self.num_ready == len(ready)
        assert self.held_bytes == sum(entry.size for entry in ready)
        assert self.num_loading == sum(entry.is_loading for entry in self._entries.values())
        assert self.num_loading <= self._max_parallel_loads
        assert not (self._idle and self._is_over())
        assert all(not entry.leases or entry.is_ready for entry in self._entries.values())
        assert all(not self._entries[key].leases and self._entries[key].is_ready for key in self._idle)
        assert len(self._failures) <= MAX_FAILURES
