"""The command `trygon` as a person uses it: typed at a terminal, watched, and stopped with Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.waiting import wait_until

TRYGON = Path(sys.executable).with_name("trygon")

#: Takes its standard input as its controlling terminal, then becomes the command.
_AT_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
#: Several slices of a busy kernel scheduler.
_SHARE_SAMPLE_S = 0.03
_CONTROL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")


class Command:
    """A running `trygon`; what it writes is collected from the start.

    Args:
        arguments: Its command line.
        cwd: The folder that it is typed in.
        at_terminal: Whether it has a terminal, on which Ctrl-C can be pressed.
        env: Variables on top of this process's.
    """

    def __init__(
        self, *arguments: str, cwd: Path, at_terminal: bool = False, env: dict[str, str] | None = None
    ) -> None:
        self._text = ""
        self._master = -1
        environ = {**os.environ, **(env or {})}
        command = [str(TRYGON), *arguments]
        if at_terminal:
            self._master, slave = os.openpty()
            command = [sys.executable, "-c", _AT_TERMINAL, *command]
            self.process = subprocess.Popen(
                command, cwd=cwd, env=environ, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
            )
            os.close(slave)
            source = os.dup(self._master)
        else:
            source, write = os.pipe()
            self.process = subprocess.Popen(
                command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=write, stderr=write
            )
            os.close(write)
        self._reader = threading.Thread(
            target=self._read, args=(source,), name="trygon-test-reader", daemon=True
        )
        self._reader.start()

    @property
    def output(self) -> str:
        """Everything written until now, without colours and cursor movements."""
        return _CONTROL_CODES.sub("", self._text)

    def wait_for(self, text: str, *, count: int = 1, timeout_s: float = 20.0) -> str:
        """Wait until the output has `text` in it; return the output."""

        def found() -> bool:
            if self.output.count(text) >= count:
                return True
            if self.process.poll() is not None and not self._reader.is_alive():
                raise AssertionError(f"ended with {self.process.returncode} without {text!r}:\n{self.output}")
            return False

        try:
            wait_until(found, f"{text!r} in the output", timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\nthe output:\n{self.output}") from None
        return self.output

    def wait_until_serving(self) -> str:
        """Wait for the summary; return the URL in it."""
        self.wait_for("stop with")
        match = re.search(r"URL +(http://\S+)", self.output)
        assert match is not None, self.output
        return match[1]

    @property
    def instance(self) -> str:
        """The name of the instance, from the summary."""
        match = re.search(r"instance +(\S+)", self.output)
        assert match is not None, self.output
        return match[1]

    def press_ctrl_c(self) -> None:
        """Press Ctrl-C at the terminal: everybody in the foreground gets it."""
        os.write(self._master, b"\x03")

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal to the command alone."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def stop(self) -> tuple[int, float]:
        """Interrupt and wait; return the exit code and the seconds it took.

        Where others use the processors too, the seconds are those that it would have taken with one of its own:
        most of a stop is work, and a limit on it is not one on the neighbours.
        """
        share = _processor_share()
        begun = time.monotonic()
        if self._master >= 0:
            self.press_ctrl_c()
        else:
            self.interrupt()
        code = self.wait()
        took_s = time.monotonic() - begun
        return code, took_s * min(share, _processor_share())

    def close(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.interrupt()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(10)
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def _read(self, source: int) -> None:
        # A terminal whose last user is gone answers with an error.
        with open(source, "rb", buffering=0) as stream, contextlib.suppress(OSError):
            while data := stream.read(65536):
                self._text += data.decode(errors="replace")


def _processor_share() -> float:
    """Return how much of a processor a thread that only computes gets now, from 0 to 1."""
    begun, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < _SHARE_SAMPLE_S:
        pass
    return min(1.0, _SHARE_SAMPLE_S / (time.monotonic() - begun))


def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [str(TRYGON), *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
