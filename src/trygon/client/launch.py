"""Starts an instance: execs its supervisor and waits for one line of news."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from trygon.client.instances import prune_states
from trygon.client.rundir import check_socket_path, make_private_dir
from trygon.clock import Clock, RealClock
from trygon.errors import InstanceError
from trygon.spec.instance import InstanceConfig, InstanceRecord, LaunchReport

__all__ = ["Launched", "begin_launch", "start_instance"]

#: Importing on a busy machine with a cold disk takes its time.
_START_TIMEOUT_S = 60.0
_TAIL_BYTES = 4096

#: Write ends of the lifelines of this process's attached instances. A forked child (multiprocessing) must
#: not keep an instance alive after this process, so it closes its copies.
_lifelines: set[int] = set()
#: Supervisors that have not been reaped, so that forgetting a detached one leaves no zombie and no warning.
_started: list[subprocess.Popen[bytes]] = []


def _close_lifelines_in_child() -> None:
    for fd in _lifelines:
        os.close(fd)
    _lifelines.clear()


os.register_at_fork(after_in_child=_close_lifelines_in_child)


class Launched:
    """A supervisor that was exec'ed.

    Attributes:
        process: The supervisor's parent, which ends when all of the instance has ended.
    """

    def __init__(self, process: subprocess.Popen[bytes], status_fd: int, lifeline_fd: int, log: Path) -> None:
        self.process = process
        self._status_fd = status_fd
        self._lifeline_fd = lifeline_fd
        self._log = log
        self._record: InstanceRecord | None = None

    def wait_ready(
        self, *, timeout_s: float = _START_TIMEOUT_S, clock: Clock | None = None
    ) -> InstanceRecord:
        """Return the record of the instance as soon as its sockets can be connected to.

        Raises:
            InstanceError: It could not be started; nothing is left of it.
        """
        if self._record is not None:
            return self._record
        report = self._read_report(timeout_s, clock or RealClock())
        if report.record is None:
            self.let_go()
            self._end()
            raise InstanceError(report.error)
        self._record = report.record
        return report.record

    def let_go(self) -> None:
        """Drop the lifeline: an attached instance then shuts down."""
        lifeline, self._lifeline_fd = self._lifeline_fd, -1
        status, self._status_fd = self._status_fd, -1
        _lifelines.discard(lifeline)
        for fd in (lifeline, status):
            if fd >= 0:
                os.close(fd)

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until nothing is left of the instance; False when the time is over first."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _read_report(self, timeout_s: float, clock: Clock) -> LaunchReport:
        deadline = clock.monotonic() + timeout_s
        data = b""
        status_fd, self._status_fd = self._status_fd, -1
        with open(status_fd, "rb", buffering=0) as status, selectors.DefaultSelector() as selector:
            selector.register(status, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, deadline - clock.monotonic())):
                    return LaunchReport(
                        error=f"the instance did not start within {timeout_s:g} s; {self._tail()}"
                    )
                piece = status.read(65536)
                if not piece:
                    break
                data += piece
        if not data:
            return LaunchReport(error=f"the supervisor ended before it was ready; {self._tail()}")
        return msgspec.json.decode(data, type=LaunchReport)

    def _tail(self) -> str:
        try:
            text = self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            text = ""
        return f"the end of {str(self._log)!r}:\n{text}"

    def _end(self) -> None:
        if not self.wait_ended(2.0):
            self.process.kill()
            self.process.wait()


def begin_launch(config: InstanceConfig) -> Launched:
    """Exec a supervisor and return at once, so that the caller can prepare what it deploys meanwhile.

    Raises:
        InstanceError: A directory cannot be used, or the program cannot be started.
    """
    check_socket_path(Path(config.runtime_dir))
    log_dir = Path(config.state_dir) / "logs"
    make_private_dir(Path(config.state_dir))
    make_private_dir(log_dir)
    log_path = log_dir / "supervisor.log"
    status_read, status_write = os.pipe()
    lifeline_read, lifeline_write = os.pipe() if config.attached else (-1, -1)
    log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    inherited = [fd for fd in (status_write, lifeline_read) if fd >= 0]
    try:
        with tempfile.TemporaryFile() as file:
            file.write(msgspec.json.encode(config))
            file.seek(0)
            command = [sys.executable, "-P", "-m", "trygon.processes.supervisor"]
            process = subprocess.Popen(
                [*command, str(file.fileno()), str(status_write), str(lifeline_read)],
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                pass_fds=(*inherited, file.fileno()),
                start_new_session=True,
            )
    except OSError as error:
        for fd in (status_read, lifeline_write):
            if fd >= 0:
                os.close(fd)
        raise InstanceError(f"{sys.executable!r} could not be started: {error.strerror}") from None
    finally:
        for fd in (log_fd, *inherited):
            os.close(fd)
    _started[:] = [*(other for other in _started if other.poll() is None), process]
    if lifeline_write >= 0:
        _lifelines.add(lifeline_write)
    # While the supervisor imports what it needs, there is time to tidy up.
    prune_states(Path(config.state_dir).parent, Path(config.runtime_dir).parent)
    return Launched(process, status_read, lifeline_write, log_path)


def start_instance(config: InstanceConfig) -> Launched:
    """Start an instance and wait until its sockets can be connected to.

    Raises:
        InstanceError: One paragraph that says why it could not be started.
    """
    launched = begin_launch(config)
    launched.wait_ready()
    return launched
