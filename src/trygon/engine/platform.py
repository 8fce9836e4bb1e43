"""What only Linux has, and its portable twins; the one place that chooses.

`portable=True` forces the twins, so that the fault tests can run them on Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

__all__ = ["Platform"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
#: Of 1000; raising one's own needs no privilege, and what a replica starts inherits it.
_REPLICA_OOM_SCORE = "300"


class Platform:
    """The services of the kernel that keep a family of processes together.

    Args:
        portable: Use nothing that only Linux has.
    """

    def __init__(self, *, portable: bool = False) -> None:
        self.linux = sys.platform == "linux" and not portable
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def become_subreaper(self) -> None:
        """Inherit orphaned descendants, so that they can be found, reaped and ended. No twin: groups only."""
        if self.linux:
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def name_process(self, name: str) -> None:
        """Show `name` in process listings; at most 15 bytes count."""
        if self._libc is not None:
            self._libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)

    def die_first(self) -> None:
        """Offer this process to the kernel when memory runs out, before those that hold the instance together."""
        if self.linux:
            with contextlib.suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(_REPLICA_OOM_SCORE)

    def die_with_parent(self, parent_pid: int, lifeline_fd: int) -> None:
        """End this process when its parent ends, however that happens.

        Args:
            parent_pid: The parent as it was before the fork; if it is gone already, this does not return.
            lifeline_fd: Read end of a pipe whose only write end the parent holds; used by the twin.
        """
        if self.linux:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent_pid:
                os._exit(1)
            return
        threading.Thread(
            target=_end_group_at_eof, args=(lifeline_fd,), name="trygon-lifeline", daemon=True
        ).start()

    def children(self) -> list[int]:
        """Return the pids of this process's children, adopted orphans included; empty when unknown."""
        if not self.linux:
            return []
        try:
            return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
        except OSError:
            # The kernel was built without it.
            me = os.getpid()
            return [pid for pid, parent, _ in _processes() if parent == me]

    def session_members(self, session: int) -> list[int]:
        """Return the pids whose session is `session`; empty when unknown."""
        if not self.linux:
            return []
        return [pid for pid, _, sid in _processes() if sid == session]

    def _prctl(self, option: int, value: int) -> None:
        if self._libc is not None and self._libc.prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _processes() -> list[tuple[int, int, int]]:
    """Return (pid, parent, session) of every process that /proc shows."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat", "rb") as file:
                # The command may hold spaces and parentheses; the fields after it do not.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        found.append((int(entry.name), int(fields[1]), int(fields[3])))
    return found


def _end_group_at_eof(lifeline_fd: int) -> None:
    while os.read(lifeline_fd, 1):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
