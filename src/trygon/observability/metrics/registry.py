"""The families of this process, what fills them before they are published, and who is told of changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

from trygon.observability.metrics.families import Family, FamilySnapshot

__all__ = ["LATENCY_BUCKETS_MS", "REGISTRY", "STAGE_BUCKETS_MS", "Collector", "Registry", "Source"]

#: Ray Serve's, and three finer ones below.
LATENCY_BUCKETS_MS: Final = (
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0),
    *(1_000.0, 2_000.0, 5_000.0, 10_000.0, 60_000.0, 120_000.0, 300_000.0, 600_000.0),
)
STAGE_BUCKETS_MS: Final = (
    *(0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0),
    *(1_000.0, 2_000.0, 5_000.0, 10_000.0, 30_000.0, 60_000.0),
)

Collector = Callable[[], None]
Source = Callable[[], Iterable[FamilySnapshot]]


def _nobody() -> None:
    """Hear of changes before there is anybody to publish them."""


class Registry:
    """Families by name; one for the process, `REGISTRY`."""

    def __init__(self) -> None:
        #: True until the first change after a publication; then `wake` was called.
        self.is_quiet = True
        #: Bounds of the latency families that do not say theirs, in milliseconds; set before cells are made.
        self.latency_bounds: tuple[float, ...] = LATENCY_BUCKETS_MS
        #: Told of the first change after a publication, by whatever thread made it.
        self.on_change: Callable[[], None] = _nobody
        self._families: dict[str, Family] = {}
        self._collectors: list[Collector] = []
        self._sources: list[Source] = []
        self._dropped = self.counter(
            "metrics_dropped_series", "Sets of labels that were not kept: a family has too many.", ("metric",)
        )

    def wake(self) -> None:
        """Say that something changed; call it when `is_quiet`."""
        self.is_quiet = False
        self.on_change()

    # ---- declaring

    def counter(self, name: str, text: str, labels: tuple[str, ...], *, total: str = "") -> Family:
        """Declare a family of counts that only grow; twice is the same family."""
        return self._declare(Family(name, "counter", text, labels, total=total))

    def gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Family:
        """Declare a family of levels."""
        return self._declare(Family(name, "gauge", text, labels))

    def histogram(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        *,
        bounds: tuple[float, ...] | None = None,
        scale: float = 1.0,
        total: str = "",
    ) -> Family:
        """Declare a family of distributions.

        Args:
            name: Ray Serve's without `serve_`.
            text: For people.
            labels: Names of its labels.
            bounds: Upper bounds of its buckets as shown; None takes those of latencies.
            scale: What observations are multiplied with to be shown: 1000 shows seconds as milliseconds.
            total: Name of the family that adds up all processes.
        """
        chosen = self.latency_bounds if bounds is None else bounds
        return self._declare(Family(name, "histogram", text, labels, bounds=chosen, scale=scale, total=total))

    def _declare(self, family: Family) -> Family:
        known = self._families.setdefault(family.name, family)
        if (known.kind, known.labels) != (family.kind, family.labels):
            raise ValueError(f"metric {family.name!r} is declared twice, and not alike")
        return known

    @property
    def families(self) -> tuple[Family, ...]:
        """What was declared, in order."""
        return tuple(self._families.values())

    def use_latency_bounds(self, bounds: tuple[float, ...]) -> None:
        """Count latencies into other buckets from now on; before any cell is made."""
        for family in self._families.values():
            if family.bounds == self.latency_bounds:
                family.bounds = bounds
        self.latency_bounds = bounds

    def add_collector(self, collector: Collector) -> None:
        """Call `collector` before each publication."""
        self._collectors.append(collector)

    def remove_collector(self, collector: Collector) -> None:
        """Call it no more."""
        if collector in self._collectors:
            self._collectors.remove(collector)

    def add_source(self, source: Source) -> None:
        """Publish what `source` returns too."""
        if source not in self._sources:
            self._sources.append(source)

    # ---- reading

    def note_dropped(self, name: str, count: int) -> None:
        """Say how many sets of labels of a family were not kept so far."""
        if count:
            self._dropped.cell(name).value = count

    def snapshot(self) -> list[FamilySnapshot]:
        """Return every family that has numbers."""
        for collector in tuple(self._collectors):
            collector()
        found = [source for give in self._sources for source in give()]
        for family in self.families:
            self.note_dropped(family.name, family.num_dropped)
        own = [family.snapshot() for family in self.families]
        return [family for family in (*own, *found) if family.samples]

    def clear(self) -> None:
        """Forget every number, not the families: a forked child starts from nothing."""
        self._collectors.clear()
        self.on_change = _nobody
        self.is_quiet = True
        for family in self.families:
            family.clear()


REGISTRY = Registry()
# Else what a program counted would be published twice when its fork connects too.
os.register_at_fork(after_in_child=REGISTRY.clear)
