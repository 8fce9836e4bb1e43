"""Which kinds of requests end replicas: deaths counted for each kind. Pure.

A kind is a fingerprint of what a request asks. Each caller keeps one ledger for a revision of a deployment;
`dataplane.replay` tells it what was lost and does what it says.

The rule: every kind that was in work on a replica which died of its own doing is suspect until one request of it
completes. Until the cause of a death is known nothing more of its kinds is sent; a suspect is sent to one replica at
a time; a kind that ended two is refused. What is told too late, or never, counts as done from outside.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection
from enum import Enum
from typing import Any

__all__ = [
    "CAUSE_WAIT_S",
    "MAX_DEATHS",
    "MAX_KINDS",
    "REFUSE_S",
    "PoisonLedger",
    "Verdict",
    "fingerprint",
]

#: Replicas that one kind of request may end.
MAX_DEATHS = 2
#: A kind is refused, or suspect, for this long after the last death. It bounds what a false suspicion costs, and
#: what a real one does: one replica in five minutes. Code that was mended is another revision, with a new ledger.
REFUSE_S = 300.0
#: The controller tells the cause within milliseconds; one that is being restarted never will.
CAUSE_WAIT_S = 1.0
#: A cause that comes even later than this is of no use.
_LATE_CAUSE_S = 10.0
#: Bounds the memory of a ledger: 16 bytes and a few words for each kind.
MAX_KINDS = 1024
#: Deaths that may wait for their cause, and those whose cause is kept for losses that are heard of later.
_MAX_REPLICAS = 128
#: Hashing all of a gigabyte would hold up everybody else.
_MAX_HASHED_BYTES = 1024 * 1024


class Verdict(Enum):
    """What may be done with a request."""

    PASS = 1  #: nothing is known against it
    WAIT = 2  #: something of its kind is being found out
    TRY = 3  #: suspect: it may run where no other suspect does
    REFUSE = 4  #: its kind has ended as many replicas as it may


def fingerprint(*parts: bytes | memoryview) -> bytes:
    """Return the kind of a request that consists of `parts`; of very long ones only the size and the beginning count."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        # The size too, or ("ab", "c") would be ("a", "bc").
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(memoryview(part)[:_MAX_HASHED_BYTES])
    return digest.digest()


class _Suspect:
    __slots__ = ("at", "deaths", "is_tried")

    def __init__(self) -> None:
        #: Of its own, since a request of the kind last completed.
        self.deaths = 0
        #: When the last one was counted.
        self.at = 0.0
        self.is_tried = False


class PoisonLedger:
    """Deaths by kind of request, for one revision of a deployment."""

    __slots__ = ("_known", "_proven", "_suspects", "_unexplained")

    def __init__(self) -> None:
        #: Oldest death first; never more than MAX_KINDS.
        self._suspects: OrderedDict[bytes, _Suspect] = OrderedDict()
        #: Replicas that died of a cause that is not known yet: kinds, and when.
        self._unexplained: OrderedDict[str, tuple[set[bytes], float]] = OrderedDict()
        #: Replicas whose cause is known: whether it counts, and which kinds it was counted for.
        self._known: OrderedDict[str, tuple[bool, set[bytes]]] = OrderedDict()
        #: Kinds that were seen to complete, the last one last; never more than MAX_KINDS.
        self._proven: OrderedDict[bytes, None] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        """Whether every request passes."""
        return not self._suspects and not self._unexplained

    # ---- what happened

    def blame(self, trials: set[bytes], waiting: set[bytes], begun: set[bytes]) -> set[bytes]:
        """Return which of the kinds that a replica had may have ended it.

        The likeliest alone, or what everybody asks would soon be refused: first those that were under suspicion,
        then those without an answer, in both cases before any that was seen to complete; last those whose answer
        had begun, or every long stream of events would be a suspect of each death.

        Args:
            trials: Kinds that were tried there.
            waiting: Kinds of other requests without an answer.
            begun: Kinds of requests whose answer had begun.
        """
        proven = self._proven.keys()
        return trials - proven or waiting - proven or trials or waiting or begun

    def lose(self, replica_id: str, kinds: Collection[bytes], now: float) -> None:
        """Take the kinds of the requests that were in work on a replica that is gone; repeated, they add up."""
        known = self._known.get(replica_id)
        if known is not None:
            self._count(kinds, known, now)
        elif kinds:
            held, at = self._unexplained.get(replica_id, (set(), now))
            held.update(kinds)
            self._unexplained[replica_id] = held, at
            _shorten(self._unexplained, _MAX_REPLICAS)

    def explain(self, replica_id: str, now: float, *, is_own: bool) -> None:
        """Hear why a replica died: of its own doing, which counts, or not. The first word is the last."""
        if replica_id in self._known:
            return
        known = self._known[replica_id] = (is_own, set())
        _shorten(self._known, _MAX_REPLICAS)
        kinds, _ = self._unexplained.pop(replica_id, (set(), 0.0))
        self._count(kinds, known, now)

    def _count(self, kinds: Collection[bytes], known: tuple[bool, set[bytes]], now: float) -> None:
        is_own, counted = known
        if not is_own:
            return
        for kind in kinds:
            if kind not in counted:
                counted.add(kind)
                suspect = self._suspects.setdefault(kind, _Suspect())
                suspect.deaths += 1
                suspect.at = now
                self._suspects.move_to_end(kind)
        _shorten(self._suspects, MAX_KINDS)

    def complete(self, kind: bytes) -> None:
        """Clear a kind: a request of it was answered, and the replica lives."""
        self._suspects.pop(kind, None)
        self._proven[kind] = None
        self._proven.move_to_end(kind)
        _shorten(self._proven, MAX_KINDS)
        for replica_id, (kinds, _) in list(self._unexplained.items()):
            kinds.discard(kind)
            if not kinds:
                del self._unexplained[replica_id]

    def begin_try(self, kind: bytes) -> None:
        """Send no other request of this kind until `end_try`."""
        suspect = self._suspects.get(kind)
        if suspect is not None:
            suspect.is_tried = True

    def end_try(self, kind: bytes) -> None:
        """Let another request of this kind be tried."""
        suspect = self._suspects.get(kind)
        if suspect is not None:
            suspect.is_tried = False

    # ---- what follows

    def judge(self, kind: bytes, now: float) -> Verdict:
        """Return what may be done with a request of this kind."""
        for kinds, at in self._unexplained.values():
            if kind in kinds and now < at + CAUSE_WAIT_S:
                return Verdict.WAIT
        suspect = self._suspects.get(kind)
        is_old = suspect is None or now >= suspect.at + REFUSE_S
        if suspect is None or (is_old and suspect.deaths < MAX_DEATHS):
            return Verdict.PASS
        if suspect.deaths >= MAX_DEATHS and not is_old:
            return Verdict.REFUSE
        return Verdict.WAIT if suspect.is_tried else Verdict.TRY

    def retry_after_s(self, kind: bytes, now: float) -> float:
        """Return the seconds until a refused kind may be sent again."""
        suspect = self._suspects.get(kind)
        return max(suspect.at + REFUSE_S - now, 0.0) if suspect is not None else 0.0

    def next_due(self, now: float) -> float | None:
        """Return when a verdict changes by itself; None when none does."""
        times = [at + CAUSE_WAIT_S for _, at in self._unexplained.values() if now < at + CAUSE_WAIT_S]
        times += [at + _LATE_CAUSE_S for _, at in self._unexplained.values()]
        if self._suspects:
            times.append(next(iter(self._suspects.values())).at + REFUSE_S)
        return min(times, default=None)

    def expire(self, now: float) -> None:
        """Forget what is too old: causes that nobody told, and suspicions."""
        for replica_id, (_, at) in list(self._unexplained.items()):
            if now >= at + _LATE_CAUSE_S:
                del self._unexplained[replica_id]
        while self._suspects:
            kind, suspect = next(iter(self._suspects.items()))
            if now < suspect.at + REFUSE_S:
                return
            del self._suspects[kind]
            if suspect.deaths >= MAX_DEATHS:
                # One more try, not two: the next death convicts again.
                suspect.deaths, suspect.at = MAX_DEATHS - 1, now
                self._suspects[kind] = suspect

    def validate(self) -> None:
        """Assert what must always hold; tests call it after every step."""
        assert len(self._suspects) <= MAX_KINDS, "kinds are bounded"
        assert len(self._proven) <= MAX_KINDS, "proven kinds are bounded"
        assert len(self._unexplained) <= _MAX_REPLICAS, "deaths without a cause are bounded"
        assert len(self._known) <= _MAX_REPLICAS, "known causes are bounded"
        assert not self._known.keys() & self._unexplained.keys(), "a death is explained or not"
        times = [suspect.at for suspect in self._suspects.values()]
        assert times == sorted(times), "the oldest suspicion comes first"
        assert all(suspect.deaths > 0 for suspect in self._suspects.values()), "a suspect has a death"


def _shorten(entries: OrderedDict[Any, Any], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
