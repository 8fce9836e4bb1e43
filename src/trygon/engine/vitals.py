"""How a process is, from /proc; None where there is no /proc."""

from __future__ import annotations

import os

from trygon.engine.base import Vitals

__all__ = ["parse_stat", "read_vitals"]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def read_vitals(pid: int) -> Vitals | None:
    """Return how a process is, or None when it is gone or cannot be looked at."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return parse_stat(file.read(), _TICKS_PER_S)
    except (OSError, ValueError, IndexError):
        return None


def parse_stat(stat: bytes, ticks_per_s: int) -> Vitals:
    """Read the text of /proc/PID/stat, as proc(5) describes it."""
    # The command may hold spaces and parentheses; the fields after it do not.
    fields = stat.rpartition(b")")[2].split()
    state = fields[0]
    return Vitals(
        # A small t is a debugger's stop: somebody looks at it, and it must not be taken from under their eyes.
        stopped=state == b"T",
        running=state == b"R",
        # User and system time of all threads.
        cpu_s=(int(fields[11]) + int(fields[12])) / ticks_per_s,
        memory_bytes=int(fields[21]) * _PAGE_BYTES if len(fields) > 21 else 0,
    )
