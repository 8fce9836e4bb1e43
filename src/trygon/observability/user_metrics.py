"""Metrics that user code makes: counters, gauges and histograms with tags, kept in this process.

A metric costs a dictionary look-up and an addition under one lock. `collect` gives what is held; the
export to Prometheus reads it from there.
"""

from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["RESERVED_TAGS", "Counter", "Gauge", "Histogram", "Sample", "collect", "set_tag_source"]

#: Added to every metric in a replica, so user code cannot give them.
RESERVED_TAGS = ("deployment", "replica", "application")

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_lock = threading.Lock()
_metrics: list[_Metric] = []
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
        return [sample for metric in _metrics for sample in metric.samples()]


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
            _metrics.append(self)

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
        raise NotImplementedError

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

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        super().__init__(name, description, tag_keys)
        self._values: dict[tuple[tuple[str, str], ...], float] = {}

    def inc(self, value: int | float = 1, tags: dict[str, str] | None = None) -> None:
        """Add `value`, which is above 0.

        Raises:
            ValueError: A value of 0 or less, an unknown tag, or a tag without a value.
        """
        if not value > 0:
            raise ValueError(f"a counter grows by more than 0, found {value!r}; use a Gauge for levels")
        key = self._tags(tags)
        with _lock:
            self._values[key] = self._values.get(key, 0.0) + value

    def samples(self) -> list[Sample]:
        """Return one sample for each set of tags; the caller has the lock."""
        return [
            Sample(self._name, self.kind, self._description, tags, value)
            for tags, value in self._values.items()
        ]


class Gauge(_Metric):
    """A level that goes up and down; arguments as for `Counter`."""

    kind = "gauge"

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        super().__init__(name, description, tag_keys)
        self._values: dict[tuple[tuple[str, str], ...], float] = {}

    def set(self, value: int | float, tags: dict[str, str] | None = None) -> None:
        """Set the level.

        Raises:
            ValueError: An unknown tag, or a tag without a value.
        """
        key = self._tags(tags)
        with _lock:
            self._values[key] = float(value)

    def samples(self) -> list[Sample]:
        """Return one sample for each set of tags; the caller has the lock."""
        return [
            Sample(self._name, self.kind, self._description, tags, value)
            for tags, value in self._values.items()
        ]


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
        self._boundaries = tuple(float(bound) for bound in boundaries)
        self._counts: dict[tuple[tuple[str, str], ...], list[int]] = {}
        self._sums: dict[tuple[tuple[str, str], ...], float] = {}

    def observe(self, value: int | float, tags: dict[str, str] | None = None) -> None:
        """Count one observation.

        Raises:
            ValueError: An unknown tag, or a tag without a value.
        """
        key = self._tags(tags)
        bucket = bisect.bisect_left(self._boundaries, value)
        with _lock:
            counts = self._counts.setdefault(key, [0] * (len(self._boundaries) + 1))
            counts[bucket] += 1
            self._sums[key] = self._sums.get(key, 0.0) + value

    def samples(self) -> list[Sample]:
        """Return one sample for each set of tags; the caller has the lock."""
        found = []
        for tags, counts in self._counts.items():
            total = 0
            buckets = []
            for bound, count in zip((*self._boundaries, float("inf")), counts, strict=True):
                total += count
                buckets.append((bound, total))
            found.append(
                Sample(self._name, self.kind, self._description, tags, self._sums[tags], tuple(buckets))
            )
        return found
