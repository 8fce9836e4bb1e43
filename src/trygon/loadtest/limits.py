"""Conditions on which a load test fails, such as 'p99>200ms', and whether they hold. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

import msgspec

from trygon.errors import ConfigError
from trygon.loadtest.result import Result
from trygon.loadtest.schedule import parse_duration, parse_rate

__all__ = ["Limit", "parse_limit"]

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_LIMIT = re.compile(r"\s*(p\d+(?:\.\d+)?|mean|max|errors|rate)\s*(>=|<=|>|<)\s*(\S+(?:\s*\S+)?)\s*")
_WANTED = "wanted a condition such as 'p99>200ms', 'max>1s', 'errors>0.1%', 'errors>10' or 'rate<500/s'"
_ALL = 100.0


class Limit(msgspec.Struct, frozen=True):
    """One condition; the test fails when it holds."""

    text: str
    measure: str
    sign: str
    bound: float
    #: Of `errors`: a share of all requests instead of their number.
    is_share: bool = False

    def value(self, result: Result) -> float:
        """Return what is compared with the bound: seconds, requests a second, failures or their share."""
        latencies = result.latencies
        if self.measure == "mean":
            return latencies.mean_s
        if self.measure == "max":
            return latencies.highest_s
        if self.measure == "rate":
            return result.rps
        if self.measure == "errors":
            return result.error_share if self.is_share else result.num_failed
        return latencies.quantile(float(self.measure[1:]) / _ALL)

    def holds(self, result: Result) -> bool:
        """Whether the test fails by it."""
        return _SIGNS[self.sign](self.value(result), self.bound)


def parse_limit(text: str) -> Limit:
    """Return a condition.

    Raises:
        ConfigError: It cannot be read.
    """
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise ConfigError(f"{_WANTED}, found {text!r}")
    measure, sign, value = found[1], found[2], found[3]
    if measure.startswith("p") and not 0 < float(measure[1:]) <= _ALL:
        raise ConfigError(f"a percentile lies above 0 and is at most 100, found {measure!r} in {text!r}")
    is_share = measure == "errors" and value.endswith("%")
    try:
        if is_share:
            bound = float(value.removesuffix("%")) / _ALL
        elif measure == "errors":
            bound = float(value)
        else:
            bound = parse_rate(value) if measure == "rate" else parse_duration(value)
    except ValueError:
        raise ConfigError(f"{_WANTED}, found {text!r}") from None
    return Limit(text, measure, sign, bound, is_share)
