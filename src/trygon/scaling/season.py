"""A season in the demand, believed only after two whole ones were seen. Pure."""

from __future__ import annotations

import msgspec

__all__ = ["Season"]

#: Parts of a season; of a day, half an hour each.
_NUM_PARTS = 48


class Season(msgspec.Struct, frozen=True, kw_only=True):
    """The mean demand of each part of the last two seasons."""

    period_s: float
    #: Means by number of the part since time began; those of two seasons and no older ones.
    means: dict[int, float] = {}
    #: The part that runs: its number, the sum of its samples, and how many there were.
    part: int = 0
    sum: float = 0.0
    samples: int = 0

    def after(self, total: float, now: float) -> Season:
        """Return the season with one more sample of the demand."""
        part = self._part(now)
        if part == self.part:
            return msgspec.structs.replace(self, sum=self.sum + total, samples=self.samples + 1)
        means = self.means
        if self.samples:
            means = {n: mean for n, mean in means.items() if n > part - 2 * _NUM_PARTS - 2}
            means[self.part] = self.sum / self.samples
        return Season(period_s=self.period_s, means=means, part=part, sum=total, samples=1)

    def expected(self, at: float) -> float | None:
        """Return the least that two seasons had at this time of theirs; None before they were seen."""
        part = self._part(at)
        first, second = self.means.get(part - 2 * _NUM_PARTS), self.means.get(part - _NUM_PARTS)
        return None if first is None or second is None else min(first, second)

    def _part(self, at: float) -> int:
        return int(at / self.period_s * _NUM_PARTS)
