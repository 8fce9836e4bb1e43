"""Which log lines a person sees in the terminal, and how."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trygon.client.log_tail import LogSource

__all__ = ["LogView"]

#: The start of a line that one of our own loggers wrote: `LEVEL time ...`, or a JSON object.
_HEAD = re.compile(r"([A-Z]+|Level \d+) \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} |\{\"levelname\": \"([A-Z]+)\"")
_ORDINARY = "INFO 2"
_QUIET_LEVELS = frozenset(("DEBUG", "INFO"))
_COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
_PREFIX_COLOURS = ("cyan", "green", "magenta", "blue", "yellow")

#: How a replica's and the controller's report of a failed start begins; who deploys tells it in another way.
_START_FAILED = " -- the replica failed to start:"
_REVISION_FAILED = re.compile(r"trygon\.control -- revision \d+ of application .* failed: ")


class LogView:
    """Turns lines of log files into lines of a terminal.

    Replicas and ingress processes are shown whole; the controller and the supervisor from warnings on.
    What a program prints gets its deployment's name in front; lines in our own format have it already.

    Args:
        write: Takes the lines to show.
        is_coloured: Whether colours can be shown.
        shows_all: Leave nothing out.
    """

    def __init__(
        self, write: Callable[[list[str]], None], *, is_coloured: bool, shows_all: bool = False
    ) -> None:
        self._write = write
        self._shows_all = shows_all
        self._is_coloured = is_coloured
        #: Files whose lines are left out until the next line that begins a record.
        self._hidden: set[LogSource] = set()
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._hides_failures = False

    def hide_start_failures(self, *, hide: bool) -> None:
        """Leave out the tracebacks of replicas that fail to start, while somebody else shows them."""
        self._hides_failures = hide

    def already_told(self, traceback: str) -> None:
        """Leave out a failed start with this traceback, whenever it is read."""
        with self._lock:
            self._told.add(traceback.strip())

    def take(self, source: LogSource, lines: list[str]) -> None:
        """Show what is worth it of new lines of one file."""
        shown = []
        is_plain = source.kind in {"replica", "ingress"}
        for number, line in enumerate(lines):
            if is_plain and line.startswith(_ORDINARY):
                # Nearly every line of a busy access log.
                self._hidden.discard(source)
                shown.append(line)
                continue
            head = _HEAD.match(line)
            if head is None:
                if source not in self._hidden:
                    shown.append(self._prefixed(source, line))
                continue
            self._hidden.discard(source)
            level = head[1] or head[2]
            if self._is_left_out(source, level, line, lines[number + 1 :]):
                self._hidden.add(source)
            else:
                shown.append(self._coloured(line, level))
        if shown:
            self._write(shown)

    def _is_left_out(self, source: LogSource, level: str, line: str, following: list[str]) -> bool:
        if self._shows_all:
            return False
        if source.kind in {"replica", "ingress"}:
            if not line.endswith(_START_FAILED):
                return False
            return self._hides_failures or self._is_told(following)
        return level in _QUIET_LEVELS or _REVISION_FAILED.search(line) is not None

    def _is_told(self, following: list[str]) -> bool:
        with self._lock:
            return any("\n".join(following).strip().startswith(told) for told in self._told)

    def _prefixed(self, source: LogSource, line: str) -> str:
        prefix = f"{source.name} {source.id}".rstrip() + " |"
        if self._is_coloured:
            colour = _PREFIX_COLOURS[sum(source.name.encode()) % len(_PREFIX_COLOURS)]
            prefix = click.style(prefix, fg=colour)
        return f"{prefix} {line}"

    def _coloured(self, line: str, level: str) -> str:
        colour = _COLOURS.get(level)
        return click.style(line, fg=colour) if colour and self._is_coloured else line
