"""How many requests a replica should work on at a time, learned from how long they take. Pure.

While more at a time does not make each one slower, more is better; when it does, they only wait for one another inside
of the replica. The rule is the gradient of Netflix's concurrency-limits (2018): the limit is multiplied by "time when
nearly alone / time now" and gets a small allowance, the square root of the limit, by which it grows and probes.
The time when nearly alone is measured anew every now and then, at a quarter of the limit, as BBR does for its round trip:
a mean that follows the load, as in the original's second version, would take waiting for work in the end.
"""

from __future__ import annotations

import math
from enum import IntEnum

__all__ = ["GradientLimit"]

_FIRST = 4.0
#: A request may take so much longer than when nearly alone before the limit shrinks.
_TOLERANCE = 1.5
#: How far a step goes towards what the gradient says.
_SMOOTHING = 0.5
#: A step looks at so many requests, or two for each that may be in work, and at so many seconds.
_MIN_SAMPLES = 50
_MIN_WINDOW_S = 0.1
#: Steps before the first look at a quarter of the limit, and between two of them.
_FIRST_PROBE = 10
_PROBE_EVERY = 60
_PROBE_SHARE = 0.25
#: How much a faster window lowers what counts as nearly alone.
_BASE_GAIN = 0.1


class _Phase(IntEnum):
    STEER = 0
    #: The limit was cut; what ends now was begun before.
    SETTLE = 1
    PROBE = 2


class GradientLimit:
    """Tells the limit after each request.

    Args:
        minimum: The smallest limit.
        maximum: The greatest.
    """

    __slots__ = (
        "_base_s",
        "_before_probe",
        "_began",
        "_limit",
        "_maximum",
        "_minimum",
        "_most",
        "_num",
        "_phase",
        "_sum_s",
        "_until_probe",
    )

    def __init__(self, *, minimum: int = 1, maximum: int) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._limit = float(min(max(_FIRST, minimum), maximum))
        #: How long a request takes when it is nearly alone; 0 before anything was seen.
        self._base_s = 0.0
        self._phase = _Phase.STEER
        self._until_probe = _FIRST_PROBE
        self._before_probe = 0.0
        #: The requests since the last step.
        self._began = -1.0
        self._num = 0
        self._sum_s = 0.0
        self._most = 0

    @property
    def limit(self) -> int:
        """Requests that may be in work at a time."""
        return int(self._limit)

    def end(self, latency_s: float, num_ongoing: int, now: float) -> int:
        """Hear that a request is done; return the limit.

        Args:
            latency_s: How long it was in work.
            num_ongoing: Requests in work, this one included.
            now: The time.
        """
        if self._began < 0.0:
            self._began = now
        self._num += 1
        self._sum_s += latency_s
        self._most = max(self._most, num_ongoing)
        if self._num >= max(_MIN_SAMPLES, 2 * self.limit) and now - self._began >= _MIN_WINDOW_S:
            self._step(self._sum_s / self._num, is_used=2 * self._most > self.limit)
            self._began, self._num, self._sum_s, self._most = now, 0, 0.0, 0
        return self.limit

    def _step(self, mean_s: float, *, is_used: bool) -> None:
        if self._phase is _Phase.SETTLE:
            self._phase = _Phase.PROBE
            return
        if self._phase is _Phase.PROBE:
            self._base_s = mean_s
            self._limit = self._before_probe
            self._phase = _Phase.STEER
            self._until_probe = _PROBE_EVERY
            return
        if not self._base_s:
            self._base_s = mean_s
        elif mean_s < self._base_s:
            self._base_s += _BASE_GAIN * (mean_s - self._base_s)
        if not is_used:
            # Whatever took long was not the limit's doing, and a limit nobody reaches must not grow.
            return
        self._until_probe -= 1
        if self._until_probe <= 0:
            self._before_probe = self._limit
            self._limit = max(self._limit * _PROBE_SHARE, self._minimum)
            self._phase = _Phase.SETTLE
            return
        gradient = max(0.5, min(1.0, _TOLERANCE * self._base_s / mean_s)) if mean_s > 0.0 else 1.0
        wanted = self._limit * gradient + math.sqrt(self._limit)
        moved = self._limit + _SMOOTHING * (wanted - self._limit)
        self._limit = min(max(moved, self._minimum), self._maximum)
