"""What a test may leave behind: nothing. Counts processes, threads, sockets and folders before and after."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Threads that serve the whole life of the test process: the client's loop, and loops' name resolvers.
LASTING_THREADS = ("trygon", "asyncio_", "pytest_timeout", "AnyIO", "ThreadPoolExecutor")


@dataclass(frozen=True)
class Footprint:
    """What of ours is there at one moment; each thing has a name that a person can search for."""

    processes: frozenset[str]
    threads: frozenset[str]
    sockets: frozenset[str]
    folders: frozenset[str]

    @classmethod
    def take(cls, home: str) -> Footprint:
        """Look around; `home` is the TRYGON_HOME that marks our processes, wherever they were re-parented to."""
        return cls(
            processes=frozenset(_describe(process) for process in own_processes(home)),
            threads=frozenset(
                f"{thread.name} ({thread.ident})"
                for thread in threading.enumerate()
                if not thread.name.startswith(LASTING_THREADS)
            ),
            sockets=frozenset(_sockets()),
            folders=frozenset(_folders()),
        )

    def grown_since(self, before: Footprint) -> dict[str, list[str]]:
        """Return what is here now and was not before, by kind.

        Sockets and folders are not compared when an instance was up before the test:
        connections to it are kept for the next test, and it may write when it likes.
        """
        kinds = (
            ["processes", "threads"] if before.processes else ["processes", "threads", "sockets", "folders"]
        )
        grown = {kind: sorted(getattr(self, kind) - getattr(before, kind)) for kind in kinds}
        return {kind: names for kind, names in grown.items() if names}


def own_processes(home: str) -> Iterator[psutil.Process]:
    """Yield children of this process, and every process that carries our TRYGON_HOME."""
    seen: set[int] = {os.getpid()}
    for process in psutil.Process().children(recursive=True):
        seen.add(process.pid)
        yield process
    for process in psutil.process_iter():
        if process.pid in seen:
            continue
        try:
            if process.environ().get("TRYGON_HOME") == home:
                yield process
        except (psutil.Error, OSError):
            continue


def end(home: str) -> None:
    """Kill what is left, so that one leak does not fail every later test."""
    for process in list(own_processes(home)):
        try:
            process.kill()
        except psutil.Error:
            continue


def _describe(process: psutil.Process) -> str:
    try:
        # Only what stays the same for life: this text is what tells an old process from a new one.
        ended = " [zombie]" if process.status() == psutil.STATUS_ZOMBIE else ""
        return f"pid {process.pid}: {' '.join(process.cmdline()) or process.name()}{ended}"
    except psutil.Error:
        return f"pid {process.pid}: gone"


def _sockets() -> Iterator[str]:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:"):
            yield f"descriptor {entry.name}: {target}"


def _folders() -> Iterator[str]:
    for place in (tempfile.gettempdir(), os.environ["TRYGON_RUNTIME_DIR"]):
        try:
            yield from (entry.path for entry in os.scandir(place))
        except FileNotFoundError:
            continue
