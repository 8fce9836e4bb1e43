"""Traces of arrivals: when each request came and how long it takes; from a CSV file or from a seed."""

from __future__ import annotations

import csv
import datetime
import math
import random
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from trygon.errors import TrygonError

__all__ = ["SHAPES", "ServiceTime", "Trace", "TraceError", "generate", "read_trace", "write_trace"]


class TraceError(TrygonError):
    """A trace cannot be used; the text says where and why."""


class ServiceTime(msgspec.Struct, frozen=True):
    """How long a request takes that the trace gives no time for.

    With `per_token`, the seconds are for each generated token of the trace.
    """

    seconds: float = 0.1
    per_token: bool = False

    @classmethod
    def parse(cls, text: str) -> ServiceTime:
        """Return what "0.1", "100ms" or "20ms/token" means.

        Raises:
            ValueError: It is none of these.
        """
        amount, slash, unit = text.strip().partition("/")
        if slash and unit != "token":
            raise ValueError
        scale = 0.001 if amount.endswith("ms") else 1.0
        seconds = float(amount.removesuffix("ms").removesuffix("s")) * scale
        if not (0 < seconds < math.inf):
            raise ValueError
        return cls(seconds, bool(slash))


class Trace(msgspec.Struct, frozen=True):
    """Requests in the order in which they come."""

    name: str
    #: Seconds since the first moment of the trace, never falling; and seconds of work, above zero.
    arrivals: array[float]
    services: array[float]

    @property
    def duration_s(self) -> float:
        """When the last request comes."""
        return self.arrivals[-1] if self.arrivals else 0.0

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.arrivals)


# ---- files

_TIMES = ("timestamp", "arrival_s", "time", "at")
_TOKENS = ("generatedtokens", "generated_tokens", "response tokens")


def read_trace(path: Path, service: ServiceTime) -> Trace:
    """Read a CSV file with one request a line and a header.

    The time stands in a column `timestamp`, in seconds or as a date and time. A column `service_s` says how
    long a request takes. The Azure LLM traces (TIMESTAMP, ContextTokens, GeneratedTokens) are read as they are.

    Raises:
        TraceError: It cannot be read, names the line; or it has no requests.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = sorted(_rows(path, csv.reader(lines), service))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"cannot read the trace {str(path)!r}: {error}") from None
    if not rows:
        raise TraceError(f"the trace {str(path)!r} has no requests; it needs one line for each")
    first = rows[0][0]
    return Trace(
        path.name, array("d", (at - first for at, _ in rows)), array("d", (work for _, work in rows))
    )


def _rows(path: Path, lines: Iterator[list[str]], service: ServiceTime) -> Iterator[tuple[float, float]]:
    header = [cell.strip().lower() for cell in next(lines, [])]
    time = _column(header, _TIMES)
    work, tokens = _column(header, ("service_s",)), _column(header, _TOKENS)
    if time is None:
        raise TraceError(
            f"{path}: wanted a header with a column 'timestamp', found {','.join(header)!r}; "
            "add one, and 'service_s' if requests differ"
        )
    if work is None and service.per_token and tokens is None:
        raise TraceError(f"{path}: a service time per token needs a column 'GeneratedTokens'")
    for number, cells in enumerate(lines, start=2):
        if not cells:
            continue
        try:
            seconds = service.seconds
            if work is not None:
                seconds = float(cells[work])
            elif service.per_token and tokens is not None:
                seconds *= max(1.0, float(cells[tokens]))
            at = _seconds(cells[time])
            if not (math.isfinite(at) and 0 < seconds < math.inf):
                raise ValueError
        except (ValueError, IndexError):
            raise TraceError(
                f"{path}, line {number}: wanted a time and seconds above 0, found {','.join(cells)!r}"
            ) from None
        yield at, seconds


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        # Azure writes seven digits of a second; the parser takes six.
        whole, dot, rest = text.strip().partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        at = datetime.datetime.fromisoformat(whole + rest[len(digits) :])
        at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
        return at.timestamp() + (float(f"0.{digits}") if dot and digits else 0.0)


def write_trace(path: Path, trace: Trace) -> None:
    """Write a trace as `read_trace` reads it.

    Raises:
        TraceError: The file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("timestamp", "service_s"))
            writer.writerows(
                (f"{at:.6f}", f"{work:.6f}") for at, work in zip(trace.arrivals, trace.services, strict=True)
            )
    except OSError as error:
        raise TraceError(f"cannot write the trace {str(path)!r}: {error}") from None


# ---- seeds

_Rate = Callable[[float], float]


def _diurnal(_: random.Random, duration_s: float) -> _Rate:
    """Two days, each with a quiet night."""
    return lambda at: 1.0 + 0.8 * math.sin(4 * math.pi * at / duration_s - math.pi / 2)


def _bursts(chance: random.Random, duration_s: float) -> _Rate:
    """A low level, and bursts of three to eight times it at moments that nobody can foresee."""
    bursts, at = [], 0.0
    while (at := at + chance.expovariate(1 / 240.0)) < duration_s:
        length_s = chance.uniform(10.0, 60.0)
        bursts.append((at, at + length_s, chance.uniform(3.0, 8.0)))
        at += length_s
    return lambda at: 0.5 * next((height for begin, end, height in bursts if begin <= at < end), 1.0)


def _steps(chance: random.Random, duration_s: float) -> _Rate:
    """A new level every five minutes or so."""
    ends, at = [], 0.0
    while at < duration_s:
        at += chance.uniform(180.0, 480.0)
        ends.append((at, chance.choice([0.3, 0.6, 1.0, 1.5, 2.5])))
    return lambda at: next(level for end, level in ends if at < end or end >= duration_s)


def _ramps(_: random.Random, duration_s: float) -> _Rate:
    """Three slow rises, each with a sudden end."""
    return lambda at: 0.2 + 2.0 * ((at * 3 / duration_s) % 1.0)


def _on_off(chance: random.Random, duration_s: float) -> _Rate:
    """Work for some minutes, then none at all."""
    turns, at = [0.0], 0.0
    while at < duration_s:
        at += chance.uniform(60.0, 420.0)
        turns.append(at)
    return lambda at: 2.0 if sum(turn <= at for turn in turns) % 2 else 0.0


SHAPES: dict[str, Callable[[random.Random, float], _Rate]] = {
    "diurnal": _diurnal,
    "bursts": _bursts,
    "steps": _steps,
    "ramps": _ramps,
    "on-off": _on_off,
}


def generate(
    shape: str, *, seed: int = 0, duration_s: float = 3600.0, rate: float = 10.0, service_s: float = 0.5
) -> Trace:
    """Return a trace of a shape; the same arguments give the same trace.

    Arrivals are a Poisson process whose rate the shape moves around `rate` requests a second. Service times
    are log-normal around a mean of `service_s`, as those of models that generate are.

    Raises:
        TraceError: There is no such shape.
    """
    if shape not in SHAPES:
        raise TraceError(f"there is no shape {shape!r}; choose from: {', '.join(SHAPES)}")
    chance = random.Random(f"{shape} {seed}")
    level = SHAPES[shape](chance, duration_s)
    sigma = 0.6
    middle = math.log(service_s) - sigma * sigma / 2
    arrivals, services = array("d"), array("d")
    second = 0
    while second < duration_s:
        here = rate * level(float(second))
        at = float(second)
        end = min(second + 1.0, duration_s)
        # The process has no memory: each second may begin anew.
        while here > 0 and (at := at + chance.expovariate(here)) < end:
            arrivals.append(at)
            services.append(chance.lognormvariate(middle, sigma))
        second += 1
    return Trace(f"{shape}-{seed}", arrivals, services)
