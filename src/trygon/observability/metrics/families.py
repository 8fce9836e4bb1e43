"""Families of numbers with labels, and their values at one moment. Plain numbers; no lock, clock or I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

__all__ = [
    "MAX_SERIES",
    "PROCESS_LABELS",
    "Cell",
    "Family",
    "FamilySnapshot",
    "HistogramCell",
    "Kind",
    "Value",
]

#: "counter", "gauge" or "histogram".
Kind = str
#: Sets of labels that one family keeps in one process; what is beyond is counted, and not shown.
MAX_SERIES: Final = 1000
#: Labels whose value names one process.
PROCESS_LABELS: Final = ("replica", "handle")

#: A number; for a histogram the counts of its buckets (not cumulative, one more than bounds), then the sum.
Value = float | list[float]


class FamilySnapshot(NamedTuple):
    """One family at one moment."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]
    #: Made by user code: its name gets another prefix.
    is_user: bool
    #: Name of the family that adds up all processes; empty for none.
    total: str
    #: By label values, in the order of `labels`; an empty value stands for a label that is not there.
    samples: dict[tuple[str, ...], Value]

    def to_plain(self) -> list[Any]:
        """Return it as JSON values."""
        return [*self[:7], [[labels, value] for labels, value in self.samples.items()]]

    @classmethod
    def of_plain(cls, plain: list[Any]) -> FamilySnapshot:
        """Return what `to_plain` wrote down."""
        name, kind, text, labels, bounds, is_user, total, samples = plain
        found = {tuple(values): value for values, value in samples}
        return cls(name, kind, text, tuple(labels), tuple(bounds), is_user, total, found)


class Cell:
    """A number that its owner changes."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def snapshot(self) -> Value:
        """Return the number."""
        return self.value


class HistogramCell:
    """Counts by size, and their sum.

    `bounds`, `counts` and `sum` may be used directly where a call is too much:
    ``cell.counts[bisect_left(cell.bounds, x)] += 1; cell.sum += x``.
    """

    __slots__ = ("_scale", "bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float], scale: float) -> None:
        self._scale = scale
        #: In the unit of observations, which is shown multiplied by the scale.
        self.bounds = [bound / scale for bound in bounds]
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_zeros(self, count: int) -> None:
        """Count `count` observations of nothing."""
        self.counts[0] += count

    def snapshot(self) -> Value:
        """Return the counts and the sum."""
        return [*self.counts, self.sum * self._scale]


class Family:
    """All numbers of one name; made by a `Registry`."""

    __slots__ = (
        "_cells",
        "_make",
        "_spare",
        "bounds",
        "help",
        "kind",
        "labels",
        "name",
        "num_dropped",
        "total",
    )

    def __init__(  # noqa: PLR0913 - the fields of a family
        self,
        name: str,
        kind: Kind,
        text: str,
        labels: tuple[str, ...],
        *,
        bounds: tuple[float, ...] = (),
        scale: float = 1.0,
        total: str = "",
    ) -> None:
        self.name = name
        self.kind = kind
        self.help = text
        self.labels = labels
        self.bounds = bounds
        self.total = total
        #: Sets of labels for which there was no room.
        self.num_dropped = 0
        self._make = Cell if kind != "histogram" else lambda: HistogramCell(self.bounds, scale)
        self._cells: dict[tuple[str, ...], Any] = {}
        self._spare: Any = None

    def cell(self, *values: str) -> Any:
        """Return the cell of these label values, in the order of `labels`; the same one each time.

        Beyond `MAX_SERIES` it is one that nobody sees, so that whoever counts need not care.
        """
        found = self._cells.get(values)
        if found is not None:
            return found
        if len(values) != len(self.labels):
            raise ValueError(f"family {self.name!r} has the labels {self.labels}, found values {values}")
        if len(self._cells) >= MAX_SERIES:
            self.num_dropped += 1
            if self._spare is None:
                self._spare = self._make()
            return self._spare
        made = self._cells[values] = self._make()
        return made

    def forget(self, *values: str) -> None:
        """Show the cell of these label values no more."""
        self._cells.pop(values, None)

    def clear(self) -> None:
        """Forget all cells."""
        self._cells.clear()

    def snapshot(self) -> FamilySnapshot:
        """Return what is held."""
        # A copy: another thread may make a cell meanwhile.
        cells = list(self._cells.items())
        samples = {values: cell.snapshot() for values, cell in cells}
        return FamilySnapshot(
            self.name, self.kind, self.help, self.labels, self.bounds, False, self.total, samples
        )
