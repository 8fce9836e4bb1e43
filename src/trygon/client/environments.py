"""The cache of package environments below TRYGON_HOME, which all instances share; who fills it is a program.

An environment is a folder with a virtual environment in it, named by what is installed and by the interpreter.
It counts when it has its mark, which is put there last: a build that was cut off is no environment.
Beside it lies its lock: builders and collectors hold it alone, replicas and builds that run in it share it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from trygon.clock import RealClock
from trygon.config import make_private_dir, read_settings
from trygon.errors import DeployError
from trygon.spec.application import ApplicationSpec
from trygon.spec.packages import PackageEnvironment, describe_packages

__all__ = [
    "BuildAnswer",
    "BuildOrder",
    "EnvironmentCache",
    "Preparation",
    "environments_of",
    "prepare",
    "tell_on_stderr",
]

_FOLDER = "environments"
_MARK = "trygon-ready"
_HEAD_BYTES = 4
#: A download of a few gigabytes; as long as Ray waits for an environment.
BUILD_TIMEOUT_S = 600.0
#: Environments beyond these are removed, the longest unused first, if nobody runs in or remembers them.
KEPT = 16


class BuildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the building program is told on its standard input, behind its length; the end of it is the end."""

    environment: PackageEnvironment
    #: The cache's.
    folder: str
    timeout_s: float = BUILD_TIMEOUT_S


class BuildAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came out."""

    #: For people; empty when the environment is there.
    error: str = ""


class EnvironmentCache:
    """Where environments are.

    Args:
        folder: Made when the first one is built.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_user(cls) -> EnvironmentCache:
        """Return the cache below TRYGON_HOME."""
        return cls(Path(read_settings().home) / _FOLDER)

    def path_of(self, environment: PackageEnvironment) -> Path:
        """Return the folder of an environment for this interpreter; perhaps it is not there yet."""
        return self.folder / f"{environment.id}-{_interpreter_id()}"

    def python_of(self, environment: PackageEnvironment) -> str:
        """Return its interpreter."""
        return str(self.path_of(environment) / "bin" / "python")

    def log_of(self, environment: PackageEnvironment) -> Path:
        """Return the file with everything that pip said."""
        return self.path_of(environment).with_suffix(".log")

    def is_ready(self, environment: PackageEnvironment) -> bool:
        """Whether it is built."""
        return (self.path_of(environment) / _MARK).exists()

    def mark(self, environment: PackageEnvironment) -> None:
        """Say that it is built, or used now."""
        (self.path_of(environment) / _MARK).touch()

    def enter(self, environment: PackageEnvironment) -> str | None:
        """Hold the environment for the rest of this process and what it becomes by exec.

        Returns:
            Its interpreter; None when it has to be built first.
        """
        if not self.is_ready(environment):
            return None
        fd = self.lock(self.path_of(environment), fcntl.LOCK_SH | fcntl.LOCK_NB)
        if fd is None:
            return None
        if not self.is_ready(environment):
            os.close(fd)
            return None
        os.set_inheritable(fd, True)
        self.mark(environment)
        return self.python_of(environment)

    def lock(self, path: Path, kind: int) -> int | None:
        """Return a descriptor that holds the lock of an environment; None when it cannot be had at once."""
        # Locks are never removed: who waits for one that was would hold nothing.
        fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def used(self) -> list[Path]:
        """Return the environments, the one that was used last first; torn ones come last."""

        def last_use(path: Path) -> float:
            try:
                return (path / _MARK).stat().st_mtime
            except OSError:
                return 0.0

        try:
            found = [path for path in self.folder.iterdir() if path.is_dir()]
        except OSError:
            return []
        return sorted(found, key=last_use, reverse=True)


def _interpreter_id() -> str:
    """Return what else an environment depends on: this interpreter, its machine, and the packages it sees."""
    parts = (sys.version, sys.prefix, sys.platform, os.uname().machine)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def environments_of(specs: Iterable[ApplicationSpec]) -> list[PackageEnvironment]:
    """Return the environments that replicas of these applications run in, each once."""
    found = {}
    for spec in specs:
        for deployment in spec.deployments:
            environment = spec.packages_of(deployment)
            if environment is not None:
                found[environment.id] = environment
    return list(found.values())


def tell_on_stderr(text: str) -> None:
    """Say how far it is, where nobody else does."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a person at a terminal waits


class Preparation:
    """Builds the environments that are not there, one after the other; each by a program of its own.

    Args:
        announce: Called with a line for people.
        cache: Where they are; the user's by default.
        timeout_s: For each.
    """

    def __init__(
        self,
        announce: Callable[[str], object] = tell_on_stderr,
        *,
        cache: EnvironmentCache | None = None,
        timeout_s: float = BUILD_TIMEOUT_S,
    ) -> None:
        self._announce = announce
        self._cache = cache or EnvironmentCache.of_user()
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_cancelled = False

    def cancel(self) -> None:
        """End it from another thread; nothing is left of what was half built once somebody looks again."""
        with self._lock:
            self._is_cancelled = True
            if self._process is not None:
                _end(self._process)

    def run(self, environments: Iterable[PackageEnvironment]) -> None:
        """Return when all of them are there.

        Raises:
            DeployError: One cannot be built; its text has pip's last lines.
        """
        for environment in environments:
            if environment and not self._cache.is_ready(environment):
                self._build(environment)

    def _build(self, environment: PackageEnvironment) -> None:
        what = f"environment ({describe_packages(environment)})"
        self._announce(f"building {what} ...")
        begun = RealClock().monotonic()
        answer = self._answer(environment)
        if answer.error:
            raise DeployError(answer.error)
        self._announce(f"the {what} is ready after {RealClock().monotonic() - begun:.1f} s")

    def _answer(self, environment: PackageEnvironment) -> BuildAnswer:
        make_private_dir(self._cache.folder.parent, what="TRYGON_HOME")
        make_private_dir(self._cache.folder, what="the cache of environments")
        order = BuildOrder(environment=environment, folder=str(self._cache.folder), timeout_s=self._timeout_s)
        data = msgspec.msgpack.encode(order)
        with self._lock:
            if self._is_cancelled:
                raise DeployError("the build of the environment was ended")
            # In a session of its own: Ctrl-C is for this program, which then closes the pipe.
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trygon.processes.environment_build"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(len(data).to_bytes(_HEAD_BYTES, "little") + data)
            process.stdin.flush()
            answer = process.stdout.read()
        except (BrokenPipeError, ValueError):
            answer = b""
        finally:
            with self._lock:
                self._process = None
                _end(process)
            process.wait()
            process.stdout.close()
        try:
            return msgspec.msgpack.decode(answer, type=BuildAnswer)
        except msgspec.DecodeError:
            why = "was ended" if self._is_cancelled else "failed; try again"
            return BuildAnswer(error=f"the program that builds the environment {why}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe that the program, and so everything it started, lives by."""
    if process.stdin is not None and not process.stdin.closed:
        try:
            process.stdin.close()
        except BrokenPipeError:
            return


def prepare(
    environments: Iterable[PackageEnvironment], announce: Callable[[str], object] = tell_on_stderr
) -> None:
    """Build the environments that are not there, and say so, on standard error if nothing else is given.

    Raises:
        DeployError: One cannot be built.
    """
    Preparation(announce).run(environments)
