"""An instance of Trygon inside the harness, used by public names, whose processes can be found and hurt."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from bench import venvs
from bench.errors import BenchError, Unavailable
from bench.systems import free_port
from trygon import serve

__all__ = [
    "Detached",
    "Instance",
    "alive",
    "detached_instance",
    "environment",
    "kill",
    "running_instance",
    "wait_for",
]

#: How the kernel names each kind of process: 15 bytes of the program's own name.
_NAMES = {
    "supervisor": "trygon-supervis",
    "controller": "trygon-controll",
    "ingress": "trygon-ingress",
    "replica": "trygon-replica",
}
T = TypeVar("T")
_POLL_S = 0.005
_DETACHED = "bench"


@dataclass(frozen=True)
class Instance:
    """What runs, seen through /proc."""

    home: Path
    port: int
    supervisor: int

    @classmethod
    def find(cls, home: Path, port: int) -> Instance:
        """Return the running instance of a state directory."""
        return cls(home, port, _supervisor(home))

    def pids(self, kind: str) -> set[int]:
        """Return the live processes of a kind: controller, ingress, replica."""
        return {pid for pid in _children(self.supervisor) if _name(pid) == _NAMES[kind]}

    def only(self, kind: str) -> int:
        """Return the one process of a kind, waiting for it when there is none."""
        return next(iter(wait_for(lambda: self.pids(kind), f"a process of kind {kind}")))

    def family(self) -> set[int]:
        """Return every live process that was started by the instance, grandchildren included."""
        return _marked(self.home) - {os.getpid()}


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the harness for the length of the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def running_instance(
    *, home: Path | None = None, at_start: Mapping[str, str] | None = None
) -> Iterator[Instance]:
    """Start an instance with an HTTP port for the length of the block.

    Args:
        home: Its state directory, if not a temporary one.
        at_start: Variables that only the instance gets, not the harness.
    """
    # A short path: Unix sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        root = home or Path(folder, "home")
        variables = {
            "TRYGON_HOME": str(root),
            "TRYGON_RUNTIME_DIR": f"{folder}/run",
            "RAY_SERVE_LOG_TO_STDERR": "0",
        }
        with environment(variables):
            try:
                with environment(at_start or {}):
                    serve.start(http_options={"port": 0})
                port = urlsplit(serve.http_address()).port
                assert port is not None
                yield Instance.find(root, port)
            finally:
                serve.shutdown()
                wait_for(lambda: not _marked(root) - {os.getpid()}, "the instance to end", timeout_s=15)


@contextlib.contextmanager
def detached_instance(home: Path | None = None) -> Iterator[Detached]:
    """Start a detached instance with ``trygon start`` for the length of the block; it outlives its starter.

    Args:
        home: Its state directory, if not a temporary one.

    Raises:
        Unavailable: This version has no such command, or it failed.
    """
    trygon = venvs.executable(venvs.MAIN, "trygon")
    known = subprocess.run(
        [trygon, "start", "--help"], capture_output=True, text=True, check=False, timeout=20
    )
    if known.returncode != 0:
        raise Unavailable("this version has no command `trygon start`")
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        root = home or Path(folder, "home")
        variables = {
            "TRYGON_HOME": str(root),
            "TRYGON_RUNTIME_DIR": f"{folder}/run",
            "TRYGON_INSTANCE": _DETACHED,
            "RAY_SERVE_LOG_TO_STDERR": "0",
        }
        with environment(variables):
            detached = Detached(str(trygon), root, free_port())
            detached.start()
            try:
                yield detached
            finally:
                serve.shutdown()
                wait_for(lambda: not _marked(root) - {os.getpid()}, "the instance to end", timeout_s=15)


@dataclass(frozen=True)
class Detached:
    """A detached instance that can be started again after it was killed."""

    trygon: str
    home: Path
    port: int

    def start(self) -> None:
        """Run ``trygon start`` to its end."""
        command = [self.trygon, "start", "--name", _DETACHED, "--http-port", str(self.port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-300:]
            raise Unavailable(f"`trygon start` ended with status {done.returncode}: {said}")

    def instance(self) -> Instance:
        """Return its processes as they are now."""
        return Instance.find(self.home, self.port)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> float:
    """Send a signal and return when."""
    at = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return at


def alive(pids: set[int]) -> set[int]:
    """Return those that still run; a zombie does not."""
    return {pid for pid in pids if _state(pid) not in {"", "Z", "X"}}


def wait_for(condition: Callable[[], T], what: str, *, timeout_s: float = 20.0) -> T:
    """Return the first true value of a condition, asked every 5 ms."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise Unavailable(f"waited {timeout_s:g} s for {what}")
        time.sleep(_POLL_S)
    return answer


def _supervisor(home: Path) -> int:
    found = [pid for pid in _marked(home) if _name(pid) == _NAMES["supervisor"]]
    # The guardian may bear the same name: the supervisor is the one with the others below it.
    for pid in found:
        if any(_name(child) == _NAMES["controller"] for child in _children(pid)):
            return pid
    raise BenchError(f"no supervisor of the instance in {str(home)!r} was found, only {found!r}")


def _marked(home: Path) -> set[int]:
    """Return the live processes whose environment names this state directory."""
    mark = f"TRYGON_HOME={home}\0".encode()
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if mark in Path("/proc", name, "environ").read_bytes():
                    found.add(int(name))
    return alive(found)


def _children(pid: int) -> list[int]:
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _state(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text[text.rindex(")") + 2]
