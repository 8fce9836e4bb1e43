"""Whether the kernel killed a process because memory ran out, and how memory is told to people.

The kernel sends SIGKILL like anybody else and says no word to the parent. What it does is count: in the memory
control group of the process, and for the whole machine. So a SIGKILL that nobody here sent, with a count that
rose within the last moments, was one.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

from trygon.engine.base import ReplicaExited

__all__ = ["OomCounter", "describe_bytes", "find_counter", "parse_count", "tell_exit"]

#: How long a rise of the counter may wait for the death that it belongs to. The count of a death that is not
#: ours, such as that of a program which a replica had started, must not be given to a later `kill -9`.
FRESH_S = 3.0

_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OomCounter:
    """Matches deaths to rises of the kernel's counter.

    Args:
        path: The file that counts, as `find_counter` returns it; None when there is none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._count = self._read()
        #: When each rise that no death was matched to was seen.
        self._rises: list[float] = []

    @property
    def is_known(self) -> bool:
        """Whether this machine counts at all."""
        return self._count is not None

    def look(self, now: float) -> None:
        """See whether the counter rose; at least every `FRESH_S`, and before `claim`."""
        count = self._read()
        if count is None or self._count is None:
            return
        # As many as there may be replicas, so that a leap of the counter costs nothing.
        self._rises += [now] * min(max(0, count - self._count), 1000)
        self._rises = [when for when in self._rises if now - when <= FRESH_S]
        self._count = count

    def claim(self, now: float) -> bool:
        """Return whether a process that has just died of SIGKILL was killed for its memory."""
        self.look(now)
        if not self._rises:
            return False
        self._rises.pop(0)
        return True

    def _read(self) -> int | None:
        if self._path is None:
            return None
        try:
            return parse_count(self._path.read_text())
        except OSError:
            return None


def parse_count(text: str) -> int | None:
    """Return the kills that memory.events, memory.oom_control or /proc/vmstat count; None when they do not."""
    found = _COUNT.search(text)
    return int(found[1]) if found else None


def find_counter(proc_cgroup: str, root: Path = Path("/sys/fs/cgroup")) -> Path | None:
    """Return the file that counts the kills nearest to this process, or None.

    Args:
        proc_cgroup: The text of /proc/self/cgroup.
        root: Where the control groups are mounted.
    """
    candidates = []
    for line in proc_cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        relative = path.lstrip("/")
        if "memory" in controllers.split(","):
            # In a container, the path is the host's while the mount is the container's own group.
            candidates += [
                root / "memory" / relative / "memory.oom_control",
                root / "memory/memory.oom_control",
            ]
        elif number == "0" and not controllers:
            candidates += [root / relative / "memory.events", root / "memory.events"]
    # Kills anywhere on the machine; better than nothing for a process that is in no group.
    candidates.append(Path("/proc/vmstat"))
    for candidate in candidates:
        try:
            if parse_count(candidate.read_text()) is not None:
                return candidate
        except OSError:
            continue
    return None


def describe_bytes(count: int) -> str:
    """Return a number of bytes as people write it: 1.2 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def tell_exit(
    replica_id: str, pid: int, code: int, *, peak_bytes: int, oom: bool | None, reason: str = ""
) -> ReplicaExited:
    """Return the event that tells of a replica's end.

    Args:
        replica_id: Whose.
        pid: Its process.
        code: What os.waitstatus_to_exitcode returned.
        peak_bytes: The most memory that it held.
        oom: Whether it was killed because memory ran out; None when that cannot be known.
        reason: The same in words.
    """
    if oom:
        reason = f"was killed because memory ran out (peak {describe_bytes(peak_bytes)})"
    elif oom is None and code == -signal.SIGKILL:
        reason += ", perhaps because memory ran out"
    return ReplicaExited(
        replica_id=replica_id,
        pid=pid,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        reason=reason,
        out_of_memory=bool(oom),
        peak_bytes=peak_bytes,
    )
