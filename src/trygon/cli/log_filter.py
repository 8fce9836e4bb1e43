"""Which lines of which log files somebody asked for."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime

from trygon.client.log_tail import LogSource

__all__ = ["HEAD", "LogFilter", "Selection", "file_name", "parse_since"]

#: The start of a line that one of our own loggers wrote: level and time, as text or as JSON.
HEAD = re.compile(
    r"(?P<level>[A-Z]+|Level \d+) (?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) "
    r'|\{"levelname": "(?P<json_level>[A-Z]+|Level \d+)", "asctime": "(?P<json_time>[-0-9:, ]{23})"'
)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_since(text: str) -> float:
    """Return a span such as "90", "10m", "2h" or "1d" in seconds.

    Raises:
        ValueError: It is none.
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"wanted a time span such as 90s, 10m, 2h or 1d, found {text!r}")
    return float(match[1]) * _UNIT_S[match[2]]


def file_name(text: str) -> str:
    """Return how a name is written in the name of a log file."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:80]


class Selection:
    """Whose files are meant.

    Args:
        target: "application" or "application/deployment"; None for everybody.
        replica: Id or tag of a replica; None for all.
        system: Only ingress, controller and supervisor.
        others: The names of all applications, so that `shop` is not taken for `shop_test`.
    """

    def __init__(
        self,
        *,
        target: str | None = None,
        replica: str | None = None,
        system: bool = False,
        others: list[str],
    ) -> None:
        application, _, deployment = (target or "").partition("/")
        self._application = file_name(application)
        self._deployment = file_name(deployment)
        self._tag = replica.rpartition("#")[2] if replica is not None else ""
        self._system = system
        self._longer = [
            f"{file_name(other)}_"
            for other in others
            if file_name(other).startswith(f"{self._application}_") and other != application
        ]

    def has(self, source: LogSource) -> bool:
        """Return whether the lines of a file are meant."""
        if self._system:
            return source.kind != "replica"
        if self._tag:
            return source.kind == "replica" and source.id == self._tag
        if not self._application:
            return True
        if source.kind != "replica":
            return False
        if self._deployment:
            return source.name == f"{self._application}_{self._deployment}"
        return source.name.startswith(f"{self._application}_") and not any(
            source.name.startswith(longer) for longer in self._longer
        )


class LogFilter:
    """Hands on the lines that were asked for; what follows a line that is left out is left out with it.

    Args:
        take: Gets what is left.
        selection: Whose lines.
        level: The least level, by name; None for all. What a program prints counts as INFO.
        since_wall_s: The earliest time; None for all.
    """

    def __init__(
        self,
        take: Callable[[LogSource, list[str]], None],
        selection: Selection,
        *,
        level: str | None = None,
        since_wall_s: float | None = None,
    ) -> None:
        self._take = take
        self._selection = selection
        self._least = _level_number(level) if level is not None else 0
        self._since = since_wall_s
        #: Whether the last line with a level and a time was handed on, by file.
        self._open: dict[LogSource, bool] = {}

    def take(self, source: LogSource, lines: list[str]) -> None:
        """Look at new lines of one file."""
        if not self._selection.has(source):
            return
        if not self._least and self._since is None:
            self._take(source, lines)
            return
        is_open = self._open.get(source, self._since is None and self._least <= logging.INFO)
        kept = []
        for line in lines:
            head = HEAD.match(line)
            if head is not None:
                is_open = self._is_wanted(head)
            if is_open:
                kept.append(line)
        self._open[source] = is_open
        if kept:
            self._take(source, kept)

    def _is_wanted(self, head: re.Match[str]) -> bool:
        if _level_number(head["level"] or head["json_level"]) < self._least:
            return False
        if self._since is None:
            return True
        try:
            return _wall_s(head["time"] or head["json_time"]) >= self._since
        except ValueError:
            return True


def _wall_s(stamp: str) -> float:
    """Return the time of a line, which is in local time."""
    return datetime.fromisoformat(stamp.replace(",", ".")).timestamp()


def _level_number(name: str) -> int:
    if name.startswith("Level "):
        return int(name[6:])
    return logging.getLevelNamesMapping().get(name, logging.INFO)
