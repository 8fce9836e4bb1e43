"""How many requests may wait, whether one more is worth it, and when a refused client may come back. Pure.

A queue that is longer than what can be answered in time turns every answer into one that comes too late. So its bound
is a time, not a number: what left the queue lately says how many requests that time is.
"""

from __future__ import annotations

import math

__all__ = [
    "DEFAULT_WAIT_S",
    "MAX_QUEUED",
    "UNMEASURED_BOUND",
    "DrainRate",
    "Pace",
    "RetryBudget",
    "queue_bound",
    "retry_after_s",
    "wait_is_too_long",
]

#: How long a request from outside may have to wait, where nobody says otherwise.
DEFAULT_WAIT_S = 1.0
#: Requests that may wait until it was measured how fast they leave.
UNMEASURED_BOUND = 100
#: Whatever was measured, no more wait: each is a connection, a head and perhaps a body.
MAX_QUEUED = 10_000

#: Measured are the last few seconds in which something waited.
_MEMORY_S = 2.0
#: Of a slow handler more than that: one departure never takes more than this share of what was measured before.
_MAX_FORGOTTEN = 0.05
#: Less waiting than this says nothing: the requests of a batch leave within a millisecond.
_MIN_MEASURED_S = 0.25
#: A pace is that of so long a time at least, and fades with the other.
_MIN_PACE_S = 0.5
_PACE_MEMORY_S = 5.0
#: The bound is filled to this share: a queue drains by a tenth slower or faster from second to second, and the promise
#: is about the slowest.
_FILL = 0.8
#: A request that would be late even if the queue went so much faster than measured is late.
_HASTE = 1.25


class DrainRate:
    """Requests a second that leave a queue for a replica, over the time in which some were waiting.

    Both the departures and the waiting time are sums that fade at the same pace, so their quotient is right from the
    first departure on, and idle time does not count. It is told of events and asked; nothing polls.
    """

    __slots__ = ("_mark", "_num", "_waited_s")

    def __init__(self) -> None:
        self._num = 0.0
        self._waited_s = 0.0
        #: The last event while something waits; None while the time does not count.
        self._mark: float | None = None

    def begin(self, now: float) -> None:
        """The first request waits."""
        self._mark = now

    def pause(self) -> None:
        """No replica is there: what waits now says nothing of how fast requests leave."""
        self._mark = None

    def leave(self, now: float) -> None:
        """One left for a replica."""
        mark, self._mark = self._mark, now
        if mark is None:
            return
        passed_s = max(now - mark, 0.0)
        kept = max(math.exp(-passed_s / _MEMORY_S), 1.0 - _MAX_FORGOTTEN)
        self._num = self._num * kept + 1.0
        self._waited_s = self._waited_s * kept + passed_s

    def undo(self) -> None:
        """One that left was not taken after all."""
        self._num = max(self._num - 1.0, 0.0)

    def per_s(self, now: float, *, is_waiting: bool = True) -> float | None:
        """Return the rate, or None as long as too little was seen.

        Args:
            now: The time; a queue that stands still grows slower with it.
            is_waiting: Whether something waits now.
        """
        open_s = max(now - self._mark, 0.0) if is_waiting and self._mark is not None else 0.0
        waited_s = self._waited_s + open_s
        if waited_s < _MIN_MEASURED_S or not self._num:
            return None
        return self._num / waited_s


class Pace:
    """Requests a second that were served lately, waiting or not: at least so many can be served.

    Of a deployment, whatever its revision: when something holds everybody up for a moment, as the start of many
    replicas does, the drain of that moment says little, and what was served before it says more.
    """

    __slots__ = ("_at", "_num", "_per_s")

    def __init__(self) -> None:
        self._at: float | None = None
        self._num = 0
        self._per_s = 0.0

    def look(self, num_served: int, now: float) -> None:
        """Hear how many were served in all; when a first request comes to wait."""
        if self._at is None:
            self._at, self._num = now, num_served
            return
        passed_s = now - self._at
        if passed_s >= _MIN_PACE_S:
            self._per_s = max((num_served - self._num) / passed_s, self.per_s(now))
            self._at, self._num = now, num_served

    def per_s(self, now: float) -> float:
        """Return the pace; what was seen long ago counts for less and less."""
        if self._at is None:
            return 0.0
        return self._per_s * math.exp(-max(now - self._at, 0.0) / _PACE_MEMORY_S)


def queue_bound(rate: float | None, num_slots: int, max_wait_s: float, pace: float = 0.0) -> int:
    """Return how many requests may wait.

    As many as the replicas can have in work may always wait: that is one service time of waiting, which for
    slow handlers is longer than `max_wait_s`.

    Args:
        rate: Requests a second that leave the queue, None when it is not known.
        num_slots: Requests that all replicas together work on at a time.
        max_wait_s: How long a request may wait; infinity sets no bound but `MAX_QUEUED`.
        pace: Requests a second that were served a moment ago; 0 when that is not known.
    """
    if math.isinf(max_wait_s):
        return MAX_QUEUED
    wanted = UNMEASURED_BOUND if rate is None else int(rate * max_wait_s * _FILL)
    return min(max(wanted, int(pace * max_wait_s * _FILL), num_slots, 1), MAX_QUEUED)


def wait_is_too_long(num_ahead: int, rate: float | None, timeout_s: float) -> bool:
    """Whether a request would still wait when its time is over, by a margin; False when that cannot be told."""
    return rate is not None and num_ahead > timeout_s * rate * _HASTE


def retry_after_s(num_queued: int, rate: float | None, draw: int) -> int:
    """Return whole seconds, at least 1, after which a refused client may try again.

    The shortest is when the queue of now is gone. Clients that were refused together get one of several answers, up
    to three times that, or they would come back together.

    Args:
        num_queued: Requests that wait.
        rate: How many of them leave in a second, None when it is not known.
        draw: A random number of at least 16 bits.
    """
    wait_s = num_queued / rate if rate else DEFAULT_WAIT_S
    least = min(max(math.ceil(wait_s), 1), 60)
    return least + draw % (2 * least + 1)


class RetryBudget:
    """How many requests may be sent for a second time: a share of all requests, and a few besides.

    Retries that follow every failure double the load just when the replicas fail under it. With a budget, the
    load that they add is bounded, however often and however many replicas die (the idea of Finagle, gRPC and Envoy).

    Args:
        ratio: Retries for each request.
        window_s: Requests older than this earn nothing any more.
    """

    __slots__ = ("_looked_at", "_num_started", "_ratio", "_tokens", "_window_s")

    def __init__(self, ratio: float = 0.1, window_s: float = 10.0) -> None:
        self._ratio = ratio
        self._window_s = window_s
        #: Retries that may be made now; None before the first look.
        self._tokens: float | None = None
        self._looked_at = 0.0
        self._num_started = 0

    def earn(self, num_started: int, least: int, now: float) -> None:
        """Add what the requests since the last look have earned.

        Args:
            num_started: Requests that were ever sent.
            least: Retries that may be made in each window, however few requests there are.
            now: The time.
        """
        num_new, self._num_started = num_started - self._num_started, num_started
        if self._tokens is None:
            # How long ago those were is not known.
            self._tokens = float(least)
        else:
            passed_s = max(now - self._looked_at, 0.0)
            aged = min(passed_s / self._window_s, 1.0)
            recent = num_new * min(self._window_s / passed_s, 1.0) if passed_s else num_new
            # What is left over ages with the requests that earned it, so it cannot be saved up.
            self._tokens = self._tokens * (1.0 - aged) + least * aged + self._ratio * max(recent, 0)
        self._looked_at = now

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        if self._tokens is None or self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
