"""Follows the log files of an instance: every `*.log` in its directory, those that appear later too.

One thread waits for the kernel's word that something was written (inotify on Linux, a short pause
elsewhere) and hands whole lines on. Files that vanish or shrink are no error.
"""

from __future__ import annotations

import os
import re
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["LogSource", "LogTail", "source_of"]

#: Pause of the portable twin between two looks at the directory.
_POLL_S = 0.1
#: Writes that come together are read together: a busy access log would else wake the thread at each line.
_GATHER_S = 0.02
_CHUNK_BYTES = 1 << 18
#: A line that long without its end is shown in pieces.
_LONGEST_LINE_BYTES = 1 << 16

_IN_MODIFY = 0x2
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_NONBLOCK = 0o4000
_IN_CLOEXEC = 0o2000000

_REPLICA_FILE = re.compile(r"replica_(.+)_([a-z0-9]{8})")


class LogSource(NamedTuple):
    """Which process writes a file.

    Attributes:
        kind: "replica", "ingress", "controller", "supervisor", or the file's name for others.
        name: "application_deployment" of a replica, else the kind.
        id: Tag of a replica, slot of an ingress, else empty.
    """

    kind: str
    name: str
    id: str


class _File:
    __slots__ = ("inode", "offset", "rest", "source")

    def __init__(self, source: LogSource, inode: int, offset: int) -> None:
        self.source = source
        self.inode = inode
        self.offset = offset
        #: The beginning of a line whose end is not written yet.
        self.rest = b""


_OnLines = Callable[[LogSource, list[str]], None]


class LogTail:
    """Hands the lines of all log files in a directory to a callback, on a thread of its own.

    Files that are made later than the tail are read from their start.

    Args:
        directory: Need not exist yet.
        on_lines: Called with the source and whole lines without their ends.
        num_last: Lines to begin with of each file that is there already.
        portable: Look every 0.1 s instead of being told by the kernel.
    """

    def __init__(
        self, directory: Path, on_lines: _OnLines, *, num_last: int = 0, portable: bool = False
    ) -> None:
        self._directory = directory
        self._on_lines = on_lines
        self._files: dict[str, _File] = {}
        self._stop_read, self._stop_write = os.pipe()
        self._inotify_fd = -1
        self._portable = portable or sys.platform != "linux"
        self._thread = threading.Thread(target=self._run, name="trygon-log-tail", daemon=True)
        for name, entry in self._entries():
            offset = entry.st_size
            if num_last:
                offset = _start_of_last(directory / name, entry.st_size, num_last)
            self._files[name] = _File(source_of(name), entry.st_ino, offset)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Hand on what was written until now, then end."""
        if self._stop_write < 0:
            return
        os.close(self._stop_write)
        self._stop_write = -1
        if self._thread.ident is not None:
            self._thread.join()
        else:
            os.close(self._stop_read)

    def _run(self) -> None:
        try:
            self._watch()
            self._read_all()
            while not self._wait():
                self._read_all()
            self._read_all()
            for file in self._files.values():
                self._hand_on(file, file.rest)
        finally:
            os.close(self._stop_read)
            if self._inotify_fd >= 0:
                os.close(self._inotify_fd)

    def _watch(self) -> None:
        if self._portable:
            return
        # Only here: not every command follows logs.
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        events = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO
        if fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(self._directory), events) < 0:
            # The directory is not there yet, or the user's watches are used up.
            os.close(fd)
            fd = -1
        self._inotify_fd = fd

    def _wait(self) -> bool:
        """Wait until something was written; return whether the tail is to end."""
        watched = [self._stop_read] if self._inotify_fd < 0 else [self._stop_read, self._inotify_fd]
        ready, _, _ = select.select(watched, [], [], _POLL_S if self._inotify_fd < 0 else None)
        if self._stop_read in ready:
            return True
        if not ready:
            return False
        stopped, _, _ = select.select([self._stop_read], [], [], _GATHER_S)
        try:
            # What happened is not read closely: all files are looked at.
            while len(os.read(self._inotify_fd, 65536)) > 32768:
                pass
        except BlockingIOError:
            pass
        return bool(stopped)

    def _entries(self) -> list[tuple[str, os.stat_result]]:
        found = []
        try:
            with os.scandir(self._directory) as entries:
                found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".log")]
        except OSError:
            pass
        return sorted(found, key=lambda pair: pair[1].st_mtime_ns)

    def _read_all(self) -> None:
        entries = self._entries()
        for name, entry in entries:
            file = self._files.get(name)
            if file is None:
                file = self._files[name] = _File(source_of(name), entry.st_ino, 0)
            if entry.st_ino != file.inode:
                self._finish_renamed(name, file)
                file.inode, file.offset, file.rest = entry.st_ino, 0, b""
            elif entry.st_size < file.offset:
                file.offset, file.rest = 0, b""
            if entry.st_size > file.offset:
                self._read(name, file)
        if len(entries) < len(self._files):
            present = {name for name, _ in entries}
            self._files = {name: file for name, file in self._files.items() if name in present}

    def _finish_renamed(self, name: str, file: _File) -> None:
        """Read the end of a file that was rotated away, and what was begun before it all."""
        try:
            with os.scandir(self._directory) as entries:
                older = {e.inode(): e.name for e in entries if e.name.startswith(f"{name}.")}
        except OSError:
            older = {}
        renamed = older.get(file.inode)
        if renamed is not None:
            self._read(renamed, file)
        self._hand_on(file, file.rest)

    def _read(self, name: str, file: _File) -> None:
        try:
            with (self._directory / name).open("rb", buffering=0) as raw:
                raw.seek(file.offset)
                while data := raw.read(_CHUNK_BYTES):
                    file.offset += len(data)
                    data = file.rest + data
                    end = data.rfind(b"\n") + 1
                    file.rest = data[end:]
                    self._hand_on(file, data[:end])
                    if len(file.rest) > _LONGEST_LINE_BYTES:
                        self._hand_on(file, file.rest)
                        file.rest = b""
        except OSError:
            # It was removed between the look and the read.
            return

    def _hand_on(self, file: _File, data: bytes) -> None:
        # All at once: a busy access log has tens of thousands of lines a second.
        if data:
            text = data.decode(errors="replace").removesuffix("\n")
            lines = text.split("\n")
            if "\r" in text:
                # Of a progress bar that overwrites itself, the last state counts.
                lines = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
            self._on_lines(file.source, lines)


def source_of(file_name: str) -> LogSource:
    """Return who writes a log file."""
    stem = file_name.removesuffix(".log")
    replica = _REPLICA_FILE.fullmatch(stem)
    if replica is not None:
        return LogSource("replica", replica[1], replica[2])
    kind, _, number = stem.rpartition("_")
    if kind == "ingress":
        return LogSource(kind, kind, number)
    return LogSource(stem, stem, "")


def _start_of_last(path: Path, size: int, count: int) -> int:
    """Return where the last `count` lines of the first `size` bytes begin."""
    position, block = size, b""
    try:
        with path.open("rb") as file:
            # The newline at the very end ends a line, it begins none.
            while position > 0 and block.count(b"\n") <= count:
                step = min(position, _CHUNK_BYTES)
                position -= step
                file.seek(position)
                block = file.read(step) + block
    except OSError:
        return size
    lines = block.splitlines(keepends=True)
    return size - sum(map(len, lines[max(0, len(lines) - count) :]))
