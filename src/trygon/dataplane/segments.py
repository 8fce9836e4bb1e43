"""Large payloads between processes of one machine: one memory file for each message.

Linux: a memfd, opened by the receiver through /proc; it vanishes with its last holder, so nothing is
left behind when a process is killed. Elsewhere: an owner-only temporary file. Never /dev/shm,
which containers limit to 64 MB.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence

__all__ = ["Segment", "has_room", "open_segment"]

#: writev takes at most IOV_MAX (1024) pieces and 2 GiB; see writev(2).
_MAX_PIECES = 512
_MAX_WRITE_BYTES = 1 << 30

HAS_MEMFD = hasattr(os, "memfd_create")

#: Each open segment is a descriptor, and a process without descriptors can neither accept nor connect.
_MOST_OPEN = 256
_num_open = 0


def has_room() -> bool:
    """Whether one more segment may be made in this process."""
    return _num_open < _MOST_OPEN


class Segment:
    """A memory file that holds the parts of one message until `close`."""

    __slots__ = ("_fd", "_path", "identity", "path")

    def __init__(self, parts: Sequence[memoryview], *, portable: bool = not HAS_MEMFD) -> None:
        """Write `parts` one after another.

        Raises:
            OSError: There is no memory or no descriptor left.
        """
        global _num_open
        self._path = ""
        self._fd = -1
        if portable:
            self._fd, self._path = tempfile.mkstemp(prefix="trygon-")
            #: What the receiver opens.
            self.path = self._path
        else:
            self._fd = os.memfd_create("trygon", os.MFD_CLOEXEC)
            self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        _num_open += 1
        try:
            #: Inode: the path alone may name a later segment when this one was closed early.
            self.identity = os.fstat(self._fd).st_ino
            _write_all(self._fd, parts)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the memory back once the receiver has mapped it; calling twice is harmless."""
        global _num_open
        if self._fd >= 0:
            _num_open -= 1
            os.close(self._fd)
            self._fd = -1
            if self._path:
                os.unlink(self._path)

    def __del__(self) -> None:
        self.close()


def _write_all(fd: int, parts: Sequence[memoryview]) -> None:
    pieces = [
        part[start : start + _MAX_WRITE_BYTES]
        for part in parts
        for start in range(0, part.nbytes, _MAX_WRITE_BYTES)
    ]
    while pieces:
        batch: list[memoryview] = []
        size = 0
        for piece in pieces[:_MAX_PIECES]:
            if batch and size + piece.nbytes > _MAX_WRITE_BYTES:
                break
            batch.append(piece)
            size += piece.nbytes
        written = os.writev(fd, batch)
        while pieces and written >= pieces[0].nbytes:
            written -= pieces.pop(0).nbytes
        if written:
            pieces[0] = pieces[0][written:]


def open_segment(path: str, identity: int) -> memoryview:
    """Map a segment; the bytes are private to this process and writable.

    Raises:
        OSError: The sender is gone, or has closed this segment since.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_ino != identity:
            raise FileNotFoundError("the sender has given up this message")
        return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(fd)
