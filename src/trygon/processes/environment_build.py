"""Builds one package environment: ``python -P -m trygon.processes.environment_build``, an order on standard input.

It lives as long as its standard input is open: whoever asked may die, or not wait any longer, and then nothing
goes on in the background. Never run inside the supervisor, the controller or an ingress process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import site
import subprocess
import threading
import venv
from pathlib import Path

import msgspec

import trygon
from trygon.client.environments import KEPT, BuildAnswer, BuildOrder, EnvironmentCache
from trygon.client.requirements import digest_of
from trygon.clock import RealClock
from trygon.errors import DeployError
from trygon.processes.pip_failure import explain_failure
from trygon.spec.packages import PackageEnvironment

__all__ = ["collect", "main"]

_HEAD_BYTES = 4
#: What a failed build shows; the file has everything.
_TAIL_BYTES = 64 << 10
#: Adds the packages of the environment that started Trygon, its .pth files included, behind those of this one.
_PTH = "_trygon_parent.pth"
#: Would send what is installed elsewhere.
_UNWANTED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT", "PYTHONHOME", "__PYVENV_LAUNCHER__")
_PIP_INSTALL = (
    "-m",
    "pip",
    "install",
    "--no-input",
    "--disable-pip-version-check",
    "--no-warn-script-location",
)
#: A replica that could not start would be told only after the deploy.
_PROBE = "import trygon.processes.replica_exec, trygon.processes.replica, trygon.serve"


class _Build:
    def __init__(self, order: BuildOrder) -> None:
        self._order = order
        self._environment = order.environment
        self._cache = EnvironmentCache(Path(order.folder))
        self._path = self._cache.path_of(order.environment)
        self._python = self._cache.python_of(order.environment)
        self._deadline = RealClock().monotonic() + order.timeout_s
        #: In the environment, so that what a killed pip leaves goes with it.
        self._tmp = self._path / "tmp"
        self._log = self._cache.log_of(order.environment)

    def run(self) -> None:
        """Build it, or raise DeployError; what is half built is removed."""
        # Blocks while another builds the same.
        lock = self._cache.lock(self._path, fcntl.LOCK_EX)
        assert lock is not None
        try:
            if self._cache.is_ready(self._environment):
                return
            _check_files(self._environment)
            shutil.rmtree(self._path, ignore_errors=True)
            try:
                self._install()
                self._cache.mark(self._environment)
            except OSError as error:
                raise DeployError(
                    f"the environment {str(self._path)!r} cannot be made: {error.strerror}; "
                    "make room there, or set TRYGON_HOME to another place"
                ) from None
            except subprocess.TimeoutExpired:
                raise DeployError(
                    f"the environment was not built within {self._order.timeout_s:g} s and the build was ended; "
                    f"{str(self._log)!r} tells what pip did; name fewer packages, or those with wheels"
                ) from None
            finally:
                if not self._cache.is_ready(self._environment):
                    shutil.rmtree(self._path, ignore_errors=True)
        finally:
            os.close(lock)

    def _install(self) -> None:
        environment = self._environment
        self._log.write_bytes(b"")
        self._tmp.mkdir(parents=True)
        venv.EnvBuilder(with_pip=False, symlinks=True).create(self._path)
        _write_parents(self._path)
        if environment.pip_version:
            self._pip(f"pip{environment.pip_version}")
        file = self._path / "requirements.txt"
        file.write_text("\n".join(environment.requirements) + "\n", encoding="utf-8")
        self._pip("-r", str(file), *environment.pip_install_options)
        if environment.pip_check:
            self._must("pip check found", "-m", "pip", "check")
        self._must("Trygon cannot run beside these packages", "-P", "-c", _PROBE)
        shutil.rmtree(self._tmp, ignore_errors=True)

    def _pip(self, *arguments: str) -> None:
        if self._run(*_PIP_INSTALL, *arguments) == 0:
            return
        if "No module named pip" in self._tail():
            self._must("there is no pip to install packages with", "-m", "ensurepip")
            if self._run(*_PIP_INSTALL, *arguments) == 0:
                return
        raise self._failed("pip could not install the packages")

    def _must(self, what: str, *arguments: str) -> None:
        if self._run(*arguments):
            raise self._failed(what)

    def _failed(self, what: str) -> DeployError:
        return DeployError(f"{what}:\n{explain_failure(self._tail())}\neverything it said is in {self._log}")

    def _run(self, *arguments: str) -> int:
        left_s = self._deadline - RealClock().monotonic()
        with self._log.open("ab") as log:
            return subprocess.run(
                [self._python, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_environ(), "TMPDIR": str(self._tmp)},
                cwd=self._path,
                timeout=max(left_s, 0.1),
                check=False,
            ).returncode

    def _tail(self) -> str:
        return self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")


def _check_files(environment: PackageEnvironment) -> None:
    """Refuse to build from other files than the environment is named by."""
    for path, digest in environment.digests.items():
        if digest_of(path) != digest:
            raise DeployError(
                f"{path!r} is not what it was when the application was deployed, and the environment with it "
                "is not in the cache any more; put the old file back, or deploy again"
            )


def _write_parents(path: Path) -> None:
    parents = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    own = os.path.dirname(os.path.dirname(os.path.abspath(trygon.__file__)))
    lines = [f"import site; site.addsitedir({parent!r})" for parent in parents]
    # Where Trygon itself comes from, should that be none of them.
    (target,) = path.glob("lib/python*/site-packages")
    (target / _PTH).write_text("\n".join([*lines, own]) + "\n", encoding="utf-8")


def _environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    # An index that does not answer is told in seconds, not in a minute.
    return {"PIP_RETRIES": "1", **kept, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}


def collect(cache: EnvironmentCache, *, kept: int = KEPT) -> list[Path]:
    """Remove environments beyond the last used ones, and torn builds; return what was removed.

    Never one that a process runs in, or that the state of an instance (what runs, what is in a history) names.
    """
    removed = []
    remembered = _states(cache.folder.parent)
    for number, path in enumerate(cache.used()):
        identity = path.name.partition("-")[0].encode()
        is_whole = (path / "trygon-ready").exists()
        if is_whole and (number < kept or any(identity in state for state in remembered)):
            continue
        lock = cache.lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:
            continue
        try:
            # The mark first: what is half removed must not count.
            (path / "trygon-ready").unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            path.with_suffix(".log").unlink(missing_ok=True)
            removed.append(path)
        finally:
            os.close(lock)
    _remove_old_logs(cache.folder, kept)
    return removed


def _remove_old_logs(folder: Path, kept: int) -> None:
    """Keep only the newest logs of builds that failed."""
    logs = [path for path in folder.glob("*.log") if not path.with_suffix("").exists()]
    for path in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True)[kept:]:
        path.unlink(missing_ok=True)


def _states(home: Path) -> list[bytes]:
    """Return the state files of all instances, each of which names the environments it knows by their ids."""
    found = []
    for path in home.glob("instances/*/*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                found.append(path.read_bytes())
    return found


def _end_with_input() -> None:
    """End this program, and what it started, when nobody waits for it any more."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Carry out the order in standard input, and answer on standard output."""
    # Without a buffer: a thread reads on.
    length = int.from_bytes(os.read(0, _HEAD_BYTES), "little")
    data = b""
    while len(data) < length:
        piece = os.read(0, length - len(data))
        if not piece:
            return
        data += piece
    threading.Thread(target=_end_with_input, name="trygon-lifeline", daemon=True).start()
    order = msgspec.msgpack.decode(data, type=BuildOrder)
    answer = BuildAnswer()
    try:
        _Build(order).run()
        collect(EnvironmentCache(Path(order.folder)))
    except DeployError as error:
        answer = BuildAnswer(error=str(error))
    except Exception as error:  # noqa: BLE001 - the boundary of a process: who asked must hear of it
        answer = BuildAnswer(error=f"the environment cannot be built: {type(error).__name__}: {error}")
    with open(1, "wb", closefd=False) as out:
        out.write(msgspec.msgpack.encode(answer))
    # What a package's build started, and a pip that took too long left behind, ends here too.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
