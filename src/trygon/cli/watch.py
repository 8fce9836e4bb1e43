"""Notices that Python files were saved, by looking at their times: no library, no limit of the kernel."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable

from trygon.clock import Clock, RealClock

__all__ = ["SourceWatcher"]

_PERIOD_S = 0.2
#: Editors write a file in several steps; a change counts when nothing has changed for this long.
_SETTLE_S = 0.05
#: At most a tenth of a core goes into looking.
_SHARE = 10
#: A bigger tree than this is hardly one application's code: then only files that were imported are watched.
_MOST_FILES = 5000
_SKIPPED = frozenset(("__pycache__", "node_modules", "site-packages"))

_Seen = dict[str, tuple[int, int, int]]


class SourceWatcher:
    """Looks at all Python files below some folders, and at single files, on a thread of its own.

    Args:
        folders: Watched with everything below them but hidden folders and virtual environments.
        on_change: Called with the sorted paths that were written, added or removed.
        clock: Measures how long a look takes.
        period_s: Between two looks, unless a look takes long.
    """

    def __init__(
        self,
        folders: Iterable[str],
        on_change: Callable[[list[str]], None],
        *,
        clock: Clock | None = None,
        period_s: float = _PERIOD_S,
    ) -> None:
        self._folders = tuple(folders)
        self._on_change = on_change
        self._clock = clock or RealClock()
        self._period_s = period_s
        self._files: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trygon-watch", daemon=True)
        self._seen = self._look()

    def start(self) -> None:
        """Begin to watch; what changed since the watcher was made counts."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def add_files(self, files: Iterable[str]) -> None:
        """Watch these files too, wherever they are."""
        with self._lock:
            for path in frozenset(files) - self._files:
                self._files.add(path)
                if path not in self._seen:
                    with contextlib.suppress(OSError):
                        self._seen[path] = _mark(os.stat(path))

    def _run(self) -> None:
        pause_s = self._period_s
        while not self._stopped.wait(pause_s):
            begun = self._clock.monotonic()
            changed: set[str] = set()
            while new := self._changes():
                changed |= new
                if self._stopped.wait(_SETTLE_S):
                    return
            if changed:
                self._on_change(sorted(changed))
                pause_s = self._period_s
            else:
                pause_s = max(self._period_s, _SHARE * (self._clock.monotonic() - begun))

    def _changes(self) -> set[str]:
        with self._lock:
            before, after = self._seen, self._look()
            self._seen = after
        return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}

    def _look(self) -> _Seen:
        seen: _Seen = {}
        for folder in self._folders:
            if not self._scan(folder, seen):
                seen.clear()
                break
        for path in self._files:
            with contextlib.suppress(OSError):
                seen[path] = _mark(os.stat(path))
        return seen

    def _scan(self, folder: str, seen: _Seen) -> bool:
        """Add the Python files below `folder`; False when there are too many."""
        waiting = [folder]
        while waiting:
            try:
                entries = os.scandir(waiting.pop())
            except OSError:
                continue
            with entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.name.endswith(".py"):
                            seen[entry.path] = _mark(entry.stat())
                        elif _is_searched(entry):
                            waiting.append(entry.path)
            if len(seen) + len(waiting) > _MOST_FILES:
                return False
        return True


def _is_searched(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name in _SKIPPED or not entry.is_dir(follow_symlinks=False):
        return False
    return not os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))


def _mark(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_size, found.st_ino
