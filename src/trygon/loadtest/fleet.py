"""Starts senders, hears what they see, and ends them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import msgspec

from trygon.errors import ConfigError
from trygon.loadtest.plan import LoadPlan, Target
from trygon.loadtest.result import Report, Result
from trygon.loadtest.worker import read_value, write_value

__all__ = ["Fleet", "find_address", "split"]

#: Senders end by themselves when they are told to, after the timeout of what is under way; this is on top of it.
_GRACE_S = 5.0


def find_address(target: Target, *, timeout_s: float) -> str:
    """Return an address of the target that accepts connections.

    Raises:
        ConfigError: It has none, or none accepts.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise ConfigError(f"the host {target.host!r} is not known: {reason}; check the URL") from None
    failure = "it has no address"
    for *_, place in found:
        address = str(place[0])
        try:
            socket.create_connection((address, target.port), timeout=timeout_s).close()
        except OSError as error:
            failure = error.strerror or "no answer in time"
            continue
        return address
    raise ConfigError(
        f"cannot connect to {target.authority}: {failure.lower()}; is the service running there? "
        "`trygon status` shows yours"
    )


def split(plan: LoadPlan, senders: int) -> tuple[LoadPlan, ...]:
    """Return the part of each of several senders. Pure."""
    return tuple(
        msgspec.structs.replace(
            plan,
            number=number,
            senders=senders,
            connections=_share(plan.connections, number, senders),
            max_requests=None if plan.max_requests is None else _share(plan.max_requests, number, senders),
        )
        for number in range(senders)
    )


def _share(whole: int, number: int, senders: int) -> int:
    return whole // senders + (number < whole % senders)


class Fleet:
    """Senders at work; leave the context to end them.

    Args:
        plans: One for each.
    """

    def __init__(self, plans: Sequence[LoadPlan]) -> None:
        self._reports = [Report() for _ in plans]
        self._timeout_s = max(plan.timeout_s for plan in plans)
        self._lock = threading.Lock()
        self._num_left = len(plans)
        self._senders: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._is_over = threading.Event()
        for number, plan in enumerate(plans):
            sender = subprocess.Popen(
                [sys.executable, "-m", "trygon.loadtest.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert sender.stdin is not None
            write_value(sender.stdin, plan)
            self._senders.append(sender)
            thread = threading.Thread(target=self._hear, args=(number, sender), daemon=True)
            thread.start()
            self._threads.append(thread)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for sender in self._senders:
            if sender.poll() is None:
                sender.kill()
            sender.wait()
            for stream in (sender.stdin, sender.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        for thread in self._threads:
            thread.join()

    @property
    def result(self) -> Result:
        """What was seen so far."""
        return Result(self._reports)

    @property
    def has_failed(self) -> bool:
        """Whether a sender ended without its last report."""
        return self._is_over.is_set() and not all(report.is_final for report in self._reports)

    def progress(self, period_s: float) -> Iterator[Result]:
        """Yield what was seen so far, every so often, until all have ended."""
        while not self._is_over.wait(period_s):
            yield self.result

    def stop(self) -> None:
        """Let them send no more, and wait for what is under way."""
        for sender in self._senders:
            sender.terminate()
        self._is_over.wait(self._timeout_s + _GRACE_S)

    def _hear(self, number: int, sender: subprocess.Popen[bytes]) -> None:
        assert sender.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            while (report := read_value(sender.stdout, Report)) is not None:
                self._reports[number] = report
        with self._lock:
            self._num_left -= 1
            if not self._num_left:
                self._is_over.set()
