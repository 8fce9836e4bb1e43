"""Each distinct traceback in log files once, with how often and where: the first failure is easy to find."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import msgspec

from trygon.cli.log_filter import HEAD
from trygon.client.log_tail import LogSource

__all__ = ["Failure", "Failures"]

_BEGIN = "Traceback (most recent call last):"
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
#: The same failure in two processes differs in these.
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
#: A line of an exception's message that is longer is no message.
_LONGEST_LINES = 400


class Failure(msgspec.Struct):
    """One distinct traceback."""

    traceback: str
    count: int
    #: As the log line shows it; empty where no line with a time came before.
    first_seen: str
    last_seen: str
    #: Names and ids of the processes that had it.
    processes: list[str]


class Failures:
    """Collects tracebacks."""

    def __init__(self) -> None:
        self._found: dict[str, Failure] = {}

    def read(self, source: LogSource, lines: Iterable[str]) -> None:
        """Look through the lines of one file, oldest first."""
        process = f"{source.name} {source.id}".rstrip()
        for stamp, traceback in _tracebacks(lines):
            key = _ADDRESS.sub("0x", traceback)
            failure = self._found.get(key)
            if failure is None:
                failure = self._found[key] = Failure(traceback, 0, stamp, stamp, [])
            failure.count += 1
            failure.first_seen = min(failure.first_seen, stamp)
            failure.last_seen = max(failure.last_seen, stamp)
            if process not in failure.processes:
                failure.processes.append(process)

    def in_order(self) -> list[Failure]:
        """Return them, the one that came first at the top."""
        return sorted(self._found.values(), key=lambda failure: failure.first_seen)


def _tracebacks(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (time, traceback); a chain of exceptions is one."""
    stamp = ""
    current: list[str] = []
    is_over = True
    for line in lines:
        head = HEAD.match(line)
        if head is not None or (is_over and line == _BEGIN):
            yield from _whole(stamp, current)
            current, is_over = [], True
        if head is not None:
            stamp = head["time"] or head["json_time"]
            for text in _in_json(line) if line.startswith("{") else ():
                yield from _tracebacks_in(stamp, text)
            continue
        if line == _BEGIN and is_over:
            current, is_over = [line], False
        elif current and not (is_over and _ends(line, current)):
            current.append(line)
            # The line that names the exception stands at the left; only a chain goes on after it.
            if line:
                is_over = not line.startswith((" ", *_CHAINED, _BEGIN))
        else:
            yield from _whole(stamp, current)
            current, is_over = [], True
    yield from _whole(stamp, current)


def _ends(line: str, current: list[str]) -> bool:
    """Whether a line after the name of an exception belongs to something else."""
    return len(current) >= _LONGEST_LINES or (line != "" and not line.startswith(_CHAINED))


def _whole(stamp: str, current: list[str]) -> Iterator[tuple[str, str]]:
    if len(current) > 1:
        yield stamp, "\n".join(current).rstrip()


def _tracebacks_in(stamp: str, text: str) -> Iterator[tuple[str, str]]:
    begin = text.find(_BEGIN)
    if begin >= 0:
        yield stamp, text[begin:].rstrip()


def _in_json(line: str) -> list[str]:
    try:
        fields = json.loads(line)
    except ValueError:
        return []
    return [str(fields[name]) for name in ("message", "exc_text") if name in fields]
