"""A wait that tunes itself: how long a batch that is not full waits for more. Pure.

The rule is that of renting skis. Running a batch costs `fixed_s` whatever its size, and `item_s` for each item.
Letting `size` items wait a moment longer so that one more joins them costs `size` times that moment, and saves one
`fixed_s`. So a batch waits at most `fixed_s / size - item_s` after its last item, or after it could have run; only while the next item is
expected within that time; and never so long that its oldest item would miss the target.

The time to the next item is learned only from items that came while others waited or ran. A caller who is alone
never meets another, so an idle system answers at once. A wait in vain doubles what is expected.
"""

from __future__ import annotations

import math

__all__ = ["AdaptiveWait", "CostEstimate"]

_NEVER = float("inf")
#: What a measurement keeps of its weight with each later one: the last 50 or so batches count.
_DECAY = 0.98
#: Weight of the newest gap between two items in their mean.
_GAP_WEIGHT = 0.05
#: Items that are read together came at one time; a logarithm needs more than 0.
_MIN_GAP_S = 1e-6


class CostEstimate:
    """Fits `fixed_s + item_s * size` to the batches that ran, the newer ones more (weighted least squares)."""

    __slots__ = ("_n", "_t", "_w", "_xn", "_xt")

    def __init__(self) -> None:
        self._w = self._n = self._t = self._xn = self._xt = 0.0

    def add(self, size: int, duration_s: float) -> None:
        """Take note of one batch."""
        self._w = self._w * _DECAY + 1.0
        self._n = self._n * _DECAY + size
        self._t = self._t * _DECAY + duration_s
        self._xn = self._xn * _DECAY + size * size
        self._xt = self._xt * _DECAY + size * duration_s

    @property
    def is_known(self) -> bool:
        """Whether a batch was measured."""
        return self._w > 0.0

    @property
    def item_s(self) -> float:
        """Seconds that one more item costs; at least 0."""
        spread = self._w * self._xn - self._n * self._n
        # All batches had one size, or nearly: nothing is known of the slope.
        if spread <= 1e-9 * self._w * self._xn:
            return 0.0
        return min(max((self._w * self._xt - self._n * self._t) / spread, 0.0), self._t / self._n)

    @property
    def fixed_s(self) -> float:
        """Seconds that a batch costs whatever its size; at least 0."""
        if not self.is_known:
            return 0.0
        return max((self._t - self.item_s * self._n) / self._w, 0.0)

    def duration_s(self, size: int) -> float:
        """Return how long a batch of `size` items is expected to run."""
        return self.fixed_s + self.item_s * size


class AdaptiveWait:
    """Waits as long as it pays, within a latency target.

    Args:
        target_latency_s: Seconds from an item's arrival to its answer that waiting must not exceed.
    """

    __slots__ = ("_last", "_log_gap", "cost", "target_latency_s")

    def __init__(self, target_latency_s: float) -> None:
        self.target_latency_s = target_latency_s
        self.cost = CostEstimate()
        #: Mean logarithm of the time between items that met others: items come in bursts, and a few long pauses
        #: between bursts must not hide how fast those follow each other that are on their way. None before there
        #: was one.
        self._log_gap: float | None = None
        self._last = 0.0

    @property
    def gap_s(self) -> float:
        """Seconds to the next item as far as is known; infinity when nothing is."""
        return _NEVER if self._log_gap is None else math.exp(self._log_gap)

    def arrived(self, now: float, *, is_busy: bool) -> None:
        """Learn from an item that met others."""
        gap_s, self._last = now - self._last, now
        if not is_busy:
            return
        log_gap = math.log(max(gap_s, _MIN_GAP_S))
        if self._log_gap is None:
            self._log_gap = log_gap
        else:
            self._log_gap += (log_gap - self._log_gap) * _GAP_WEIGHT

    def executed(self, size: int, duration_s: float) -> None:
        """Learn what a batch costs."""
        self.cost.add(size, duration_s)

    def missed(self, waited_s: float) -> None:
        """Learn that nobody came for `waited_s` seconds."""
        if self._log_gap is not None and waited_s >= self.gap_s:
            self._log_gap = math.log(2.0 * max(waited_s, _MIN_GAP_S))

    def patience_s(self, size: int) -> float:
        """Return how long `size` items wait for one more; 0 when it does not pay."""
        pays_s = self.cost.fixed_s / size - self.cost.item_s
        return pays_s if self.gap_s <= pays_s else 0.0

    def due_at(self, size: int, oldest: float, newest: float) -> float:
        """Return when a group of `size` items goes; `oldest` and `newest` are as in `WaitPolicy`."""
        latest = oldest + self.target_latency_s - self.cost.duration_s(size + 1)
        return min(newest + self.patience_s(size), latest)
