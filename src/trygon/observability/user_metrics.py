"""Metrics that user code makes: counters, gauges and histograms with tags, kept in this process.

A metric costs a dictionary look-up and an addition under one lock. `collect` gives what is held;
`families` gives it in the form that `observability.metrics` publishes.
Metrics of one name share their numbers, so code may make the same one again and again.
"""

from __future__ import annotations

import bisect
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trygon.observability.metrics.families import MAX_SERIES, FamilySnapshot
from trygon.observability.metrics.registry import REGISTRY

__all__ = [
    "RESERVED_TAGS",
    "Counter",
    "Gauge",
    "Histogram",
    "Sample",
    "collect",
    "families",
    "set_tag_source",
]

logger = logging.getLogger("trygon.metrics")

#: Added to every metric in a replica, so user code cannot give them.
RESERVED_TAGS = ("deployment", "replica", "application")

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_lock = threading.Lock()
_Tags = tuple[tuple[str, str], ...]
#: One of the metrics of each kind and name, and what all of them hold by tags.
_metrics: dict[tuple[str, str], _Metric] = {}
_values: dict[tuple[str, str], dict[_Tags, Any]] = {}
#: Of histograms, by name.
_boundaries: dict[str, tuple[float, ...]] = {}
#: Sets of tags that were not kept, by name.
_dropped: dict[str, int] = {}
_no_tags: Callable[[], Mapping[str, str]] = dict
_tag_source = _no_tags


def set_tag_source(source: Callable[[], Mapping[str, str]]) -> None:
    """Set what gives the reserved tags and the route of the running request."""
    global _tag_source
    _tag_source = source


class Sample(NamedTuple):
    """One metric with one set of tags.

    `value` is the count, the level, or the sum of observations; `buckets` are cumulative counts by
    upper bound, the last of them infinity, for a histogram only.
    """

    name: str
    kind: str
    description: str
    tags: tuple[tuple[str, str], ...]
    value: float
    buckets: tuple[tuple[float, int], ...] = ()


def collect() -> list[Sample]:
    """Return every metric of this process."""
    with _lock:
        return [sample for metric in _metrics.values() for sample in metric.samples()]


def families() -> list[FamilySnapshot]:
    """Return every metric of this process as a family."""
    with _lock:
        found = [family for metric in _metrics.values() if (family := metric.family()).samples]
        dropped = dict(_dropped)
    for name, count in dropped.items():
        REGISTRY.note_dropped(name, count)
    return found


def _forget_in_child() -> None:
    for held in _values.values():
        held.clear()


REGISTRY.add_source(families)
os.register_at_fork(after_in_child=_forget_in_child)


class _Metric:
    kind = ""

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise ValueError(f"a metric's name is letters, digits, '_' and ':', found {name!r}")
        if tag_keys is not None and not isinstance(tag_keys, tuple):
            raise TypeError(
                f"tag_keys is a tuple of strings, found {tag_keys!r} of type {type(tag_keys).__name__}"
            )
        for key in tag_keys or ():
            if not isinstance(key, str):
                raise TypeError(f"a tag key is a string, found {key!r} of type {type(key).__name__}")
            if key in RESERVED_TAGS:
                raise ValueError(f"the tag key {key!r} is filled in by the replica; choose another name")
        self._name = name
        self._description = description
        self._tag_keys = tag_keys or ()
        self._defaults: dict[str, str] = {}
        with _lock:
            _metrics.setdefault((self.kind, name), self)
            self._values = _values.setdefault((self.kind, name), {})

    @property
    def info(self) -> dict[str, object]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": dict(self._defaults),
        }

    def set_default_tags(self, default_tags: dict[str, str]) -> None:
        """Set tags for calls that do not give them.

        Raises:
            ValueError: A key that is not among the metric's tag keys.
            TypeError: A value that is no string.
        """
        self._check(default_tags)
        self._defaults = dict(default_tags)

    def samples(self) -> list[Sample]:
        """Return what is held; the caller has the lock."""
        return [
            Sample(self._name, self.kind, self._description, tags, value)
            for tags, value in self._values.items()
        ]

    def family(self) -> FamilySnapshot:
        """Return what is held; the caller has the lock."""
        labels = tuple(dict.fromkeys(label for tags in self._values for label, _ in tags))
        samples = {
            tuple(dict(tags).get(label, "") for label in labels): self._plain(value)
            for tags, value in self._values.items()
        }
        text = self._description or f"User metric {self._name}."
        return FamilySnapshot(self._name, self.kind, text, labels, self._bounds(), True, "", samples)

    def _bounds(self) -> tuple[float, ...]:
        return ()

    def _plain(self, value: Any) -> Any:
        return value

    def _has_place(self, key: _Tags) -> bool:
        """Whether there is a number for these tags, or room for one; the caller has the lock."""
        if key in self._values or len(self._values) < MAX_SERIES:
            return True
        count = _dropped[self._name] = _dropped.get(self._name, 0) + 1
        if count == 1:
            logger.warning(
                "metric %r has %d sets of tags, and no more are kept; use tags with few values",
                self._name,
                MAX_SERIES,
            )
        return False

    def _check(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if key not in self._tag_keys:
                raise ValueError(
                    f"metric {self._name!r} has no tag key {key!r}; it has: {', '.join(self._tag_keys) or 'none'}"
                )
            if not isinstance(value, str):
                raise TypeError(f"the value of tag {key!r} is a string, found {value!r}")

    def _tags(self, given: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
        tags = dict(_tag_source())
        route = tags.pop("route", "")
        if given:
            self._check(given)
        for key in self._tag_keys:
            if given and key in given:
                tags[key] = given[key]
            elif key in self._defaults:
                tags[key] = self._defaults[key]
            elif key == "route":
                tags[key] = route
            else:
                raise ValueError(
                    f"metric {self._name!r} needs a value for tag {key!r}; give tags={{{key!r}: ...}}"
                )
        return tuple(sorted(tags.items()))


class Counter(_Metric):
    """A count that only grows.

    Args:
        name: Letters, digits, "_" and ":".
        description: For people.
        tag_keys: Names of its tags.

    Raises:
        ValueError: A name or tag key that cannot be.
        TypeError: `tag_keys` is no tuple of strings.
    """

    kind = "counter"

    def inc(self, value: int | float = 1, tags: dict[str, str] | None = None) -> None:
        """Add `value`, which is above 0.

        Raises:
            ValueError: A value of 0 or less, an unknown tag, or a tag without a value.
        """
        if not value > 0:
            raise ValueError(f"a counter grows by more than 0, found {value!r}; use a Gauge for levels")
        key = self._tags(tags)
        with _lock:
            if self._has_place(key):
                self._values[key] = self._values.get(key, 0.0) + value
        if REGISTRY.is_quiet:
            REGISTRY.wake()


class Gauge(_Metric):
    """A level that goes up and down; arguments as for `Counter`."""

    kind = "gauge"

    def set(self, value: int | float, tags: dict[str, str] | None = None) -> None:
        """Set the level.

        Raises:
            ValueError: An unknown tag, or a tag without a value.
        """
        key = self._tags(tags)
        with _lock:
            if self._has_place(key):
                self._values[key] = float(value)
        if REGISTRY.is_quiet:
            REGISTRY.wake()


class Histogram(_Metric):
    """A distribution in buckets.

    Args:
        name: Letters, digits, "_" and ":".
        description: For people.
        boundaries: Upper bounds of the buckets, ascending and above 0; one more bucket has no bound.
        tag_keys: Names of its tags.

    Raises:
        ValueError: No boundaries, or such that do not ascend.
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        if not boundaries or list(boundaries) != sorted(set(boundaries)) or boundaries[0] <= 0:
            raise ValueError(
                f"a histogram needs boundaries that ascend and are above 0, found {boundaries!r}; "
                "for example [0.1, 1, 10]"
            )
        super().__init__(name, description, tag_keys)
        # Those of the first metric of this name, whose counts all of them share.
        self._boundaries = _boundaries.setdefault(name, tuple(float(bound) for bound in boundaries))

    def observe(self, value: int | float, tags: dict[str, str] | None = None) -> None:
        """Count one observation.

        Raises:
            ValueError: An unknown tag, or a tag without a value.
        """
        key = self._tags(tags)
        with _lock:
            if self._has_place(key):
                bounds = self._boundaries
                counts, _ = held = self._values.setdefault(key, [[0] * (len(bounds) + 1), 0.0])
                counts[bisect.bisect_left(bounds, value)] += 1
                held[1] += value
        if REGISTRY.is_quiet:
            REGISTRY.wake()

    def samples(self) -> list[Sample]:
        """Return one sample for each set of tags; the caller has the lock."""
        found = []
        for tags, (counts, added) in self._values.items():
            total = 0
            buckets = []
            for bound, count in zip((*self._boundaries, float("inf")), counts, strict=True):
                total += count
                buckets.append((bound, total))
            found.append(Sample(self._name, self.kind, self._description, tags, added, tuple(buckets)))
        return found

    def _bounds(self) -> tuple[float, ...]:
        return self._boundaries

    def _plain(self, value: Any) -> Any:
        counts, added = value
        return [*counts, added]
