"""Pages: one small file for each process, which holds what it last published and survives it.

A page is written in place and never torn: new content goes where the current one is not, then the header points
to it, in one write. Its writer holds a lock on it, which the kernel releases however the writer ends; so a page
without a lock is a dead process's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from pathlib import Path
from typing import Final

__all__ = ["PAGE_SUFFIX", "Page", "is_dead", "read_page"]

PAGE_SUFFIX: Final = ".page"
#: magic, offset u32, length u32, crc32
_HEADER: Final = struct.Struct("<8sIII")
_MAGIC: Final = b"trygonm1"
#: A reader that meets writers all the time gives up; once a second there is one.
_TRIES: Final = 5


class Page:
    """A page to write to; owner-only, locked until `close` or the end of the process.

    Args:
        path: A file that is not there yet.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        # Under another name until it is locked: a page without a lock is taken for a dead process's.
        hidden = path.with_name(f".{path.name}")
        self._fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.rename(hidden, path)
        self._begin = self._end = _HEADER.size

    def write(self, data: bytes) -> None:
        """Replace the content.

        Raises:
            OSError: It cannot be written; the content is still the one before.
        """
        size = len(data)
        # Before the current content if it fits there, else behind it.
        begin = _HEADER.size if _HEADER.size + size <= self._begin else self._end
        _write_all(self._fd, data, begin)
        _write_all(self._fd, _HEADER.pack(_MAGIC, begin, size, zlib.crc32(data)), 0)
        self._begin, self._end = begin, begin + size

    def close(self) -> None:
        """Write no more; what was written stays until it is folded."""
        with contextlib.suppress(OSError):
            os.close(self._fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def read_page(path: Path) -> bytes | None:
    """Return the content of a page; None when it has none, is gone, or is no page."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        for _ in range(_TRIES):
            header = os.pread(fd, _HEADER.size, 0)
            if len(header) < _HEADER.size:
                return None
            magic, offset, length, crc = _HEADER.unpack(header)
            if magic != _MAGIC:
                return None
            data = os.pread(fd, length, offset)
            # Written over meanwhile, when they differ: its header points elsewhere by now.
            if len(data) == length and zlib.crc32(data) == crc:
                return data
    except OSError:
        return None
    finally:
        os.close(fd)
    return None


def is_dead(path: Path) -> bool:
    """Whether nobody writes to a page any more."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
