"""Child processes: started in their own session, always ended with everything they started.

Three nets catch what a system starts: parent links, the session, and a mark in the environment;
the harness is also a child subreaper, so that orphans come to it and are seen. Linux only.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

__all__ = ["Child", "end_everything", "socket_owner", "spawn", "use_as_subreaper"]

_MARK = "BENCH_MARK"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
_live: dict[int, Child] = {}


@dataclass(frozen=True)
class _Seen:
    """One line of the process list."""

    pid: int
    parent: int
    session: int
    is_zombie: bool
    #: With the pid it names a process for ever: a pid alone may be used again.
    started_ticks: int


@dataclass
class Child:
    """One started program with all its descendants."""

    process: subprocess.Popen[bytes]
    mark: str
    log_path: Path | None
    started_at: float
    #: Everything ever seen in the tree (pid, start), so that a process whose parent died is still ended.
    _known: set[tuple[int, int]] = field(default_factory=set)

    @property
    def pid(self) -> int:
        """Process id of the program itself."""
        return self.process.pid

    def pids(self) -> set[int]:
        """Return the live processes of the tree, the program itself included."""
        table = _process_table()
        found = {pid for pid, start in self._known if pid in table and table[pid].started_ticks == start}
        found |= {
            seen.pid
            for seen in table.values()
            if self.pid in (seen.pid, seen.session) or _has_mark(seen.pid, self.mark)
        }
        found |= _descendants(table, found)
        self._known |= {(pid, table[pid].started_ticks) for pid in found}
        return {pid for pid in found if not table[pid].is_zombie}

    def pss_bytes(self) -> int:
        """Return the proportional memory of the whole tree (shared pages counted once)."""
        return sum(_pss_bytes(pid) for pid in self.pids())

    def last_words(self) -> str:
        """Return the last line the program wrote: of a traceback, the one that names the error."""
        if self.log_path is None or not self.log_path.exists():
            return "it has no log"
        lines = [
            line.strip() for line in self.log_path.read_text(errors="replace").splitlines() if line.strip()
        ]
        return f"its log ends with: {lines[-1][-300:]}" if lines else "its log is empty"

    def end(self, grace_s: float = 10.0) -> int:
        """End the program with SIGTERM, then whatever is left with SIGKILL; return how many had to be killed."""
        # First look: afterwards the parent links are gone.
        self.pids()
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        killed = _kill_all(self)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        _live.pop(self.pid, None)
        _reap_orphans()
        return killed


def use_as_subreaper() -> None:
    """Make orphans of our children come to us, and end every child when this process ends."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    atexit.register(end_everything)


def end_everything() -> None:
    """End every program that is still running."""
    for child in list(_live.values()):
        child.end(grace_s=2.0)


def spawn(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log_path: Path | None = None,
    stdout: IO[bytes] | int | None = None,
) -> Child:
    """Start a program in its own session; its output goes to `log_path`, or stdout to `stdout`."""
    mark = secrets.token_hex(8)
    full_env = {**os.environ, **(env or {}), _MARK: mark}
    with contextlib.ExitStack() as stack:
        out: IO[bytes] | int = subprocess.DEVNULL if stdout is None else stdout
        errors: IO[bytes] | int | None = None
        if log_path is not None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            errors = stack.enter_context(log_path.open("wb"))
            out = errors if stdout is None else out
        started_at = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command],
            env=full_env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    child = Child(process, mark, log_path, started_at)
    _live[process.pid] = child
    return child


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _process_table() -> dict[int, _Seen]:
    table: dict[int, _Seen] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            text = Path("/proc", name, "stat").read_text(errors="replace")
        except OSError:
            continue
        # The command name may hold spaces and brackets: the fields begin after the last one.
        fields = text[text.rindex(")") + 2 :].split()
        table[int(name)] = _Seen(int(name), int(fields[1]), int(fields[3]), fields[0] == "Z", int(fields[19]))
    return table


def _descendants(table: Mapping[int, _Seen], roots: Iterable[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for seen in table.values():
        children.setdefault(seen.parent, []).append(seen.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    return found


def _has_mark(pid: int, mark: str) -> bool:
    try:
        return f"{_MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _pss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def _kill_all(child: Child) -> int:
    """SIGKILL the tree until it is gone; a process may start another while we look."""
    killed: set[int] = set()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (pids := child.pids()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= pids
        _reap_orphans()
        child.process.poll()
        time.sleep(0.02)
    return len(killed)


def _reap_orphans() -> None:
    """Collect the exit status of adopted orphans; those of a live `Child` are Popen's to collect."""
    table = _process_table()
    for seen in table.values():
        if seen.parent != os.getpid() or seen.pid in _live:
            continue
        with contextlib.suppress(ChildProcessError):
            os.waitpid(seen.pid, os.WNOHANG)


def socket_owner(child: Child, server_port: int, client_port: int) -> int | None:
    """Return the process of the tree that holds the server's end of a loopback TCP connection."""
    inode = _socket_inode(server_port, client_port)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    for pid in sorted(child.pids()):
        try:
            descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) == wanted:
                    return pid
    return None


def _socket_inode(local_port: int, remote_port: int) -> str | None:
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            fields = line.split()
            ports = (int(fields[1].rsplit(":", 1)[1], 16), int(fields[2].rsplit(":", 1)[1], 16))
            if ports == (local_port, remote_port):
                return fields[9]
    return None
