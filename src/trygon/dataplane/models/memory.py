"""How much memory this process has, and giving back what it does not need any more."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys

__all__ = ["free_memory", "rss_bytes"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rss_bytes() -> int:
    """Return the resident memory of this process; where that cannot be told, the most it ever had."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def free_memory() -> None:
    """Collect cycles, and give free heap back to the system where the C library can (glibc).

    Takes as long as a full collection does, so it is called once for many unloads, off the loop.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
