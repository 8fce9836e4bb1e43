"""Tables and pages: what a scenario hands back, on the terminal and as Markdown."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import machine, venvs

__all__ = ["Check", "Report", "ratio", "show", "write"]


@dataclass(frozen=True)
class Check:
    """A figure with the bound it has to keep."""

    what: str
    measured: float
    bound: float
    unit: str = ""
    #: True: the figure must not be below the bound; False: not above it.
    is_floor: bool = True

    @property
    def is_met(self) -> bool:
        """Tell whether the bound is kept."""
        return self.measured >= self.bound if self.is_floor else self.measured <= self.bound

    def line(self) -> str:
        """Return the check as one sentence."""
        sign = "at least" if self.is_floor else "at most"
        unit = f" {self.unit}" if self.unit else ""
        verdict = "met" if self.is_met else "NOT MET"
        return f"{verdict}: {self.what}: {self.measured:.4g}{unit} ({sign} {self.bound:.4g}{unit})"


@dataclass
class Report:
    """All that one scenario found."""

    name: str
    title: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    #: How to read it, and whatever was unusual.
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    #: Names of the virtual environments in use, for the versions.
    venvs: list[str] = field(default_factory=list)
    #: How long and how often, where it is not the rounds of equal length that most scenarios have.
    facts: list[str] = field(default_factory=list)
    #: Every single measurement, so that the noise can be seen.
    raw: list[str] = field(default_factory=list)
    #: Largest share of the processors that was in use by others before a round.
    busiest: float = 0.0

    def add_missing(self, name: str, reason: str) -> None:
        """Add the row of a system that gave nothing, and why."""
        self.rows.append([name, "not measured", *["-"] * (len(self.columns) - 2)])
        self.notes.append(f"{name}: not measured: {reason}")


def ratio(value: float, base: float | None) -> str:
    """Return `value` as a multiple of `base`, or a dash."""
    return f"{value / base:.2f}" if base else "-"


def show(report: Report) -> None:
    """Print the table and its checks."""
    table = Table(title=report.title, title_justify="left")
    for number, column in enumerate(report.columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in report.rows:
        table.add_row(*row)
    # A file or a pipe has no width: rich would fold every cell at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    console.print(table)
    for check in report.checks:
        console.print(f"  {check.line()}")
    for note in report.notes:
        console.print(f"  note: {note}")
    console.print()


def write(report: Report, folder: Path, *, settings: Sequence[str]) -> Path:
    """Write the page of a scenario and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.name}.md"
    now = datetime.datetime.now(datetime.UTC)
    parts = [f"# {report.title}", _markdown_table(report)]
    parts += [_list("Bounds", [check.line() for check in report.checks])]
    parts += [_list("Notes", report.notes)]
    facts = [f"Date: {now:%Y-%m-%d %H:%M} UTC", *machine.describe(), *settings]
    parts += [_list("Machine and run", facts)]
    parts += [_list("Versions", [f"{name}: {venvs.installed_versions(name)}" for name in report.venvs])]
    parts += [_code("Commands", report.commands), _code("Every measurement", report.raw)]
    path.write_text("\n\n".join(part for part in parts if part) + "\n")
    return path


def _markdown_table(report: Report) -> str:
    def line(cells: Sequence[str]) -> str:
        # A bar or a line break in a cell would break the table.
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    dashes = ["---"] + ["---:"] * (len(report.columns) - 1)
    return "\n".join([line(report.columns), line(dashes), *(line(row) for row in report.rows)])


def _list(heading: str, items: Sequence[str]) -> str:
    return f"## {heading}\n\n" + "\n".join(f"- {item}" for item in items) if items else ""


def _code(heading: str, lines: Sequence[str]) -> str:
    return f"## {heading}\n\n```\n" + "\n".join(lines) + "\n```" if lines else ""
