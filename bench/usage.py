"""What a process uses, read from /proc: memory, descriptors, processor time; and how it grows."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "cpu_s", "slope_per_minute", "usage_of"]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What some processes use together."""

    num_processes: int
    pss_bytes: int
    rss_bytes: int
    num_descriptors: int


def usage_of(pids: Iterable[int]) -> Usage:
    """Add up what processes use; one that ended meanwhile counts nothing."""
    found = [each for each in map(_usage, pids) if each is not None]
    return Usage(
        len(found),
        sum(each.pss_bytes for each in found),
        sum(each.rss_bytes for each in found),
        sum(each.num_descriptors for each in found),
    )


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used, user and system."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def slope_per_minute(points: Sequence[tuple[float, float]]) -> float:
    """Return the growth of (seconds, value) points a minute, by least squares; 0 for fewer than two."""
    if len({at for at, _ in points}) < 2:
        return 0.0
    return 60 * statistics.linear_regression(*zip(*points, strict=True)).slope


def _usage(pid: int) -> Usage | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    return Usage(1, sizes.get("Pss", 0), sizes.get("Rss", 0), descriptors)
