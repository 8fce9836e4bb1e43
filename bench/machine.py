"""What the results page says about the machine: processor, kernel, memory, load by others."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

__all__ = ["busy_share", "describe"]


def describe() -> list[str]:
    """Return one line for each fact about this machine."""
    memory_kib = next(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    return [
        f"Processor: {_processor()}, {os.cpu_count()} cores",
        f"Memory: {memory_kib / 1024**2:.1f} GiB",
        f"Kernel: {platform.system()} {platform.release()}",
        f"Python: {platform.python_version()}",
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def busy_share(over_s: float = 0.5) -> float:
    """Return the share of all cores that was busy, or taken by another guest, during `over_s`."""
    idle_before, all_before = _cpu_ticks()
    time.sleep(over_s)
    idle_after, all_after = _cpu_ticks()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)


def _cpu_ticks() -> tuple[int, int]:
    ticks = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
