"""When the requests of an open loop are due: a rate that may change with time, and arrivals of it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

import msgspec

from trygon.errors import ConfigError

__all__ = ["Phase", "arrivals", "parse_duration", "parse_ramp", "parse_rate"]

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(_NUMBER + r"\s*(us|ms|s|min|m|h|)")
_RATE = re.compile(_NUMBER + r"(?:/(s|m|min|h))?")


class Phase(msgspec.Struct, frozen=True):
    """A stretch of time in which the rate goes evenly from one value to another, in requests a second."""

    start_rps: float
    end_rps: float
    length_s: float

    @property
    def count(self) -> float:
        """Requests that are due in it."""
        return (self.start_rps + self.end_rps) / 2 * self.length_s

    def time_of(self, number: float) -> float:
        """Return when, after its begin, `number` requests have been due."""
        slope = (self.end_rps - self.start_rps) / self.length_s
        if abs(slope) < 1e-9:
            return number / self.start_rps
        root = math.sqrt(max(0.0, self.start_rps**2 + 2 * slope * number))
        return (root - self.start_rps) / slope


def arrivals(
    phases: tuple[Phase, ...],
    *,
    first: float = 0.0,
    step: float = 1.0,
    chance: Callable[[], float] | None = None,
) -> Iterator[float]:
    """Yield the seconds after the begin at which requests are due.

    Args:
        phases: One after the other.
        first: Where among evenly spaced arrivals this sender begins, for several that share one schedule.
        step: How many of them it goes on by each time.
        chance: Numbers evenly drawn from [0, 1), for arrivals of a Poisson process instead.
    """
    begun = 0.0
    number = first if chance is None else first + _gap(chance) * step
    for phase in phases:
        while number < phase.count:
            yield begun + phase.time_of(number)
            number += step if chance is None else _gap(chance) * step
        number -= phase.count
        begun += phase.length_s


def _gap(chance: Callable[[], float]) -> float:
    return -math.log(1.0 - chance())


def parse_duration(text: str) -> float:
    """Return seconds, of '30', '30s', '500ms', '2m' or '1h'.

    Raises:
        ConfigError: It is no duration.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"wanted a duration such as 30s, 500ms or 2m, found {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def parse_rate(text: str) -> float:
    """Return requests a second, of '500', '500/s' or '30/m'.

    Raises:
        ConfigError: It is no rate, or nothing would be sent.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise ConfigError(f"wanted a rate such as 500, 500/s or 30/m, found {text!r}")
    return float(found[1]) / _UNITS[found[2] or "s"]


def parse_ramp(text: str) -> Phase:
    """Return a ramp, of '100:1000/60s' for 100 to 1,000 requests a second within 60 s.

    Raises:
        ConfigError: It is no ramp.
    """
    rates, slash, length = text.partition("/")
    start, colon, end = rates.partition(":")
    if not slash or not colon:
        raise ConfigError(f"wanted a ramp such as 100:1000/60s (from:to/duration), found {text!r}")
    try:
        ramp = Phase(float(start), float(end), parse_duration(length))
    except ValueError:
        raise ConfigError(f"wanted a ramp such as 100:1000/60s (from:to/duration), found {text!r}") from None
    if (
        ramp.length_s <= 0
        or min(ramp.start_rps, ramp.end_rps) < 0
        or not ramp.count
        or not math.isfinite(ramp.count)
    ):
        raise ConfigError(f"a ramp takes some time and sends something, found {text!r}")
    return ramp
