"""The file that a process's standard output and error go to, rotated by the process itself.

Whatever is written to the descriptors lands in the file: prints, log lines, what C code writes. So nobody
stands between a `print` and the disk, and nothing blocks it. After a write the process looks at the size,
at most once a second, and when it is too large renames the file and puts a new one under its descriptors.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

__all__ = [
    "KEPT_LOG_FILES",
    "MAX_LOG_BYTES",
    "LogFile",
    "Rotation",
    "note_written",
    "rotation_or",
    "use_log_file",
    "use_rotation",
]

MAX_LOG_BYTES = 64 << 20
#: Older files beside the current one: `x.log.1` is the newest of them.
KEPT_LOG_FILES = 4
_PERIOD_S = 1.0
#: A process that prints very much does not wait for the next second.
_LOOK_BYTES = 1 << 20

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Rotation(NamedTuple):
    """When a log file is begun anew, and what is kept of those before; None leaves it to the kind of file."""

    max_bytes: int | None = None
    #: Older files beside the current one.
    kept: int | None = None


_rotation = Rotation()


def use_rotation(rotation: Rotation) -> None:
    """Rotate the files that this process, and those that are forked from it, open from now on like this."""
    global _rotation
    _rotation = rotation


def rotation_or(max_bytes: int, kept: int) -> tuple[int, int]:
    """Return the largest size of a file and the number of older ones, with what holds where nothing was said."""
    given = _rotation
    return (
        max_bytes if given.max_bytes is None else given.max_bytes,
        kept if given.kept is None else given.kept,
    )


class LogFile:
    """A file under some descriptors.

    Args:
        path: Its name, now and after each rotation.
        monotonic: Tells the time.
        fds: Descriptors that write to it.
        max_bytes: Beyond it a new file is begun.
        kept: Older files that are kept.
    """

    def __init__(
        self,
        path: str,
        monotonic: Callable[[], float],
        *,
        fds: tuple[int, ...] = (1, 2),
        max_bytes: int = MAX_LOG_BYTES,
        kept: int = KEPT_LOG_FILES,
    ) -> None:
        self._path = path
        self._monotonic = monotonic
        self._fds = fds
        self._max_bytes = max_bytes
        self._kept = kept
        self._look_at = 0.0
        self._unseen = 0
        self._lock = threading.Lock()

    def open(self) -> None:
        """Put the file under the descriptors; OSError when it cannot be opened."""
        fd = os.open(self._path, _FLAGS, 0o600)
        for number in self._fds:
            os.dup2(fd, number)
        os.close(fd)

    def note_written(self, count: int) -> None:
        """Rotate if it is time to look and the file is too large; never raises, never waits."""
        self._unseen += count
        if self._unseen < _LOOK_BYTES and self._monotonic() < self._look_at:
            return
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._unseen = 0
            self._look_at = self._monotonic() + _PERIOD_S
            # A log that cannot be rotated, because the disk is full or its folder gone, must not fail a print.
            with contextlib.suppress(OSError):
                self._look()
        finally:
            self._lock.release()

    def _look(self) -> None:
        mine = os.fstat(self._fds[0])
        if mine.st_size <= self._max_bytes:
            return
        with contextlib.suppress(FileNotFoundError):
            named = os.stat(self._path)
            # A process that was forked from this one writes to the same file, and may have been faster.
            if (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino):
                self._shift()
        self.open()

    def _shift(self) -> None:
        for number in range(self._kept, 0, -1):
            older = self._path if number == 1 else f"{self._path}.{number - 1}"
            with contextlib.suppress(FileNotFoundError):
                os.replace(older, f"{self._path}.{number}")


_own: LogFile | None = None


def use_log_file(path: str, monotonic: Callable[[], float]) -> None:
    """Send this process's standard output and error to a file, which is rotated from now on."""
    global _own
    max_bytes, kept = rotation_or(MAX_LOG_BYTES, KEPT_LOG_FILES)
    file = LogFile(path, monotonic, max_bytes=max_bytes, kept=kept)
    file.open()
    _own = file


def note_written(fd: int, count: int) -> None:
    """Tell that `count` bytes were written to a descriptor."""
    if _own is not None and fd in (1, 2):
        _own.note_written(count)
