"""What every scenario gets, and the loop of interleaved rounds that all of them use."""

from __future__ import annotations

import http.client
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bench import machine, venvs
from bench.errors import BenchError, Unavailable
from bench.systems import Running, System, start
from bench.table import Report

__all__ = ["Outcome", "Settings", "chosen", "describe", "interleave", "median_of", "say", "warn_if_busy"]

T = TypeVar("T")
#: Stands for the port in a command that is shown; every run has another one.
_SHOWN_PORT = 65535
_BUSY_NOTE = "the machine was not quiet"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of one run of the harness."""

    duration_s: float = 8.0
    rounds: int = 3
    with_peers: bool = False
    #: Names of the systems to run; empty means all.
    only: frozenset[str] = frozenset()
    is_quick: bool = False
    #: What ``--duration`` said, if it was given: how long each phase of a fault scenario lasts.
    asked_s: float | None = None
    #: Whether what is simulated is also run for real.
    with_live: bool = False

    def length_s(self, *, full: float, quick: float) -> float:
        """Return how long a phase of a fault scenario lasts."""
        return self.asked_s or (quick if self.is_quick else full)

    def lines(self) -> list[str]:
        """Return the settings for the results page."""
        return [f"{self.duration_s:g} s for each measurement, median of {self.rounds} interleaved rounds"]


@dataclass
class Outcome(Generic[T]):
    """What the rounds of one system gave, or why there is nothing."""

    system: System
    results: list[T] = field(default_factory=list)
    reason: str = ""


def say(text: str) -> None:
    """Tell the person who waits what is going on."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def chosen(systems: Sequence[System], settings: Settings) -> list[System]:
    """Return the systems that ``--only`` leaves."""
    left = [system for system in systems if not settings.only or system.name in settings.only]
    if not left:
        names = ", ".join(system.name for system in systems)
        raise BenchError(f"--only leaves no system; here are: {names} (more with --peers)")
    return left


def warn_if_busy(report: Report) -> None:
    """Note it on the page when somebody else uses the processors; the worst moment stays."""
    busy = machine.busy_share()
    if busy <= 0.1:
        return
    say(f"{_BUSY_NOTE}: {busy:.0%} of the processors are busy")
    report.busiest = max(report.busiest, busy)
    report.notes = [note for note in report.notes if not note.startswith(_BUSY_NOTE)]
    report.notes.append(
        f"{_BUSY_NOTE}: up to {report.busiest:.0%} of the processors were busy before a round began"
    )


def interleave(
    systems: Sequence[System],
    report: Report,
    settings: Settings,
    measure: Callable[[Running], T],
    *,
    rounds: int | None = None,
) -> list[Outcome[T]]:
    """Start, measure and end each system in turn, round after round, so that all share the same noise.

    A system that cannot be installed or started keeps its reason and is left out of the later rounds.
    """
    outcomes: list[Outcome[T]] = [Outcome(system) for system in systems]
    rounds = rounds or settings.rounds
    for number in range(rounds):
        # Whoever comes first in one round is last in the next: the place must not favour anybody.
        turn = number % len(outcomes)
        for outcome in outcomes[turn:] + outcomes[:turn]:
            if outcome.reason:
                continue
            system = outcome.system
            try:
                venvs.ensure(system.venv)
                warn_if_busy(report)
                say(f"{report.name}: round {number + 1} of {rounds}: {system.name}")
                with start(system) as running:
                    describe(report, system)
                    outcome.results.append(measure(running))
            except (Unavailable, OSError, http.client.HTTPException) as error:
                outcome.reason = (
                    str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"
                )
                say(f"{system.name}: {outcome.reason}")
                if outcome.results:
                    report.notes.append(f"{system.name}: round {number + 1} failed: {outcome.reason}")
    return outcomes


def describe(report: Report, system: System) -> None:
    """Put the command and the environment of a system on the page, once."""
    if system.venv not in report.venvs:
        report.venvs.append(system.venv)
    words = [f"{name}={value}" for name, value in system.env.items()]
    words += [str(part) for part in system.command(_SHOWN_PORT)]
    line = f"{system.name}: {shlex.join(words)}".replace(str(_SHOWN_PORT), "PORT")
    line = line.replace(f"{venvs.ROOT.parent.parent}/", "")
    if line not in report.commands:
        report.commands.append(line)


def median_of(outcome: Outcome[T], number: Callable[[T], float]) -> float | None:
    """Return the median over the rounds, or None when the system gave nothing."""
    return statistics.median(number(result) for result in outcome.results) if outcome.results else None
