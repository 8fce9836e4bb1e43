"""The traffic of the fault scenarios: at half of the measured capacity, on kept and on new connections."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import load
from bench.load import Sample, Target
from bench.scenarios.base import Settings
from bench.systems import Probe
from bench.wrk import WrkResult, run_wrk

__all__ = ["Calls", "Seen", "Traffic", "closed_loop", "half_capacity", "mixed", "words"]

_PROBE = Probe("/", "GET", b"", None)
_CONNECTIONS = 32
#: Answers that tell of a connection that was lost, and not of a server that said no.
_LOST = ("refused", "connect", "reset", "closed")
#: One request in five opens a connection of its own.
_FRESH_SHARE = 0.2
#: No scenario sends longer than this, whatever happens to it.
_MAX_S = 900.0


@dataclass(frozen=True)
class Seen:
    """Everything that the clients of one run saw."""

    samples: Sequence[Sample]
    rps: float

    @property
    def failed(self) -> Sequence[Sample]:
        """Requests without a 200."""
        return [sample for sample in self.samples if not sample.is_good]

    @property
    def kinds(self) -> str:
        """How they failed, in words."""
        return words(Counter(sample.outcome for sample in self.failed))

    @property
    def num_lost_connections(self) -> int:
        """Connections that were refused, reset or closed under a request."""
        return sum(sample.outcome in _LOST for sample in self.failed)

    @property
    def worst_second(self) -> float:
        """Completions of the worst whole second as a share of the offered rate."""
        if not self.samples:
            return math.nan
        begun = min(sample.at for sample in self.samples)
        # The first second opens the connections, and the last one is not whole.
        seconds = range(1, int(max(sample.at for sample in self.samples) - begun))
        done = Counter(int(sample.ended_at - begun) for sample in self.samples if sample.is_good)
        return min((done[second] for second in seconds), default=math.nan) / self.rps

    def of(self, *names: str) -> Seen:
        """Return what some of the targets saw."""
        return Seen([sample for sample in self.samples if sample.target in names], self.rps)


def words(counts: Counter[str]) -> str:
    """Return counts as text for a table."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "0"


def mixed(rps: float, *, path: str = "/", with_posts: bool = False) -> list[Target]:
    """Return targets that together send `rps`, some on new connections, some of them POSTs."""
    share = rps / 2 if with_posts else rps
    kinds = [("get", False), ("post", True)] if with_posts else [("get", False)]
    return [
        Target(f"{name}{suffix}", path, share * part, is_fresh, is_post)
        for name, is_post in kinds
        for suffix, part, is_fresh in (("", 1 - _FRESH_SHARE, False), ("-new", _FRESH_SHARE, True))
    ]


def half_capacity(port: int, settings: Settings) -> float:
    """Measure how many requests a second a closed loop gets through, and return half of them."""
    seconds = 1.0 if settings.is_quick else 4.0
    return run_wrk(port, _PROBE, connections=_CONNECTIONS, duration_s=seconds).requests_per_s / 2


def closed_loop(port: int, seconds: float, during: Callable[[], None]) -> WrkResult:
    """Drive at full closed-loop load, and do something again and again meanwhile."""
    found: list[WrkResult | BaseException] = []

    def drive() -> None:
        try:
            found.append(run_wrk(port, _PROBE, connections=_CONNECTIONS, duration_s=seconds))
        except BaseException as error:  # told to the caller below
            found.append(error)

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        while thread.is_alive():
            during()
            thread.join(0.2)
    finally:
        thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


class Traffic:
    """An open-loop sender that runs for the length of a block; `seen` is there afterwards."""

    def __init__(self, port: int, targets: Sequence[Target]) -> None:
        self._port = port
        self._targets = targets
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._load: load.Load | None = None
        self.rps = sum(target.rps for target in targets)
        self.seen = Seen((), self.rps)

    def __enter__(self) -> Traffic:
        self._load = load.begin(self._port, self._targets, _MAX_S, Path(self._folder.name))
        time.sleep(1.0)  # the connections are open, the rate is steady
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._load is not None
        try:
            if kind is None:
                self.seen = Seen(load.stop(self._load), self.rps)
        finally:
            self._load.child.end(grace_s=1)
            self._folder.cleanup()


class Calls:
    """Threads that call a deployment through a handle for the length of a block."""

    def __init__(self, call: Callable[[], Any], *, threads: int = 2, pause_s: float = 0.02) -> None:
        self._call = call
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        #: (sent, ended, "200" or the error's name), of all threads.
        self.samples: list[Sample] = []

    def __enter__(self) -> Calls:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(load.TIMEOUT_S + 5)

    @property
    def seen(self) -> Seen:
        """What the callers got."""
        return Seen(list(self.samples), len(self._threads) / self._pause_s)

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            at = time.monotonic()
            try:
                self._call()
                outcome = "200"
            except Exception as error:
                outcome = type(error).__name__
            self.samples.append(Sample("handle", at, time.monotonic() - at, outcome, ""))
