"""Clients that are slow on purpose: half headers, half bodies, readers that hardly read.

Runs as a process of its own: ``python -m bench.slow --port P --clients N --seconds S --output FILE``.
Half of the unfinished ones are silent, the others send a byte now and then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.processes import Child, spawn

__all__ = ["KINDS", "Fate", "begin", "finish"]

KINDS = ("headers", "body", "reader")
_START = {
    "headers": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    "body": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\nhalf",
    "reader": b"GET /big HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}
_DRIP_EVERY_S = 4.0
_CONNECTS_PER_S = 2500
#: Loopback addresses to connect from: one address has about 28,000 ports, the sender needs some too.
_SOURCES = tuple(f"127.0.0.{last}" for last in range(2, 6))


@dataclass(frozen=True)
class Fate:
    """What became of one slow client."""

    kind: str
    #: Seconds from the connection to its end by the server; None: still open at the end.
    closed_after_s: float | None
    was_refused: bool


def begin(port: int, clients: int, seconds: float, folder: Path) -> tuple[Child, Path]:
    """Start the crowd; return when the last connection has been tried."""
    output = folder / "fates.json"
    command = [sys.executable, "-m", "bench.slow", "--port", str(port), "--clients", str(clients)]
    command += ["--seconds", f"{seconds:g}", "--output", str(output)]
    root = Path(__file__).resolve().parent.parent
    child = spawn(command, cwd=root, stdout=subprocess.PIPE, log_path=folder / "slow.log")
    assert child.process.stdout is not None
    if child.process.stdout.readline().strip() != b"all tried":
        child.end()
        raise BenchError(f"the slow clients did not start; {child.last_words()}")
    return child, output


def finish(child: Child, output: Path, timeout_s: float) -> list[Fate]:
    """Wait for the crowd to go and return what became of each."""
    try:
        child.process.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise BenchError("the slow clients did not end") from error
    finally:
        child.end(grace_s=1)
    if child.process.returncode != 0:
        raise BenchError(f"the slow clients failed; {child.last_words()}")
    return [Fate(*fields) for fields in json.loads(output.read_text())]


class _Client:
    """One slow client."""

    __slots__ = ("connection", "fate_at", "kind", "next_at", "opened_at", "was_refused")

    def __init__(self, kind: str, connection: socket.socket) -> None:
        self.kind = kind
        self.connection = connection
        self.opened_at = 0.0
        #: When the server ended it; 0 while it is open.
        self.fate_at = 0.0
        #: When it sends or reads its next byte; 0 is never.
        self.next_at = 0.0
        self.was_refused = False


class _Crowd:
    """All slow clients, on one selector."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._now = time.monotonic()
        self._last_drip_at = self._now
        self.clients: list[_Client] = []

    def run(self, count: int, seconds: float) -> None:
        """Open `count` connections, then be slow for `seconds`."""
        begun = time.monotonic()
        end_at = begun + count / _CONNECTS_PER_S + seconds
        has_told = False
        while self._now < end_at:
            self._now = time.monotonic()
            due = min(count, int((self._now - begun) * _CONNECTS_PER_S))
            # A few at a time, or nobody would look at those that are open.
            for number in range(len(self.clients), min(due, len(self.clients) + 50)):
                self._open(number)
            if len(self.clients) == count and not has_told:
                has_told = True
                print("all tried", flush=True)
            for key, events in self._selector.select(0.02):
                self._on_event(key.data, events)
            if self._now > self._last_drip_at + 0.5:
                self._last_drip_at = self._now
                self._drip()

    def fates(self) -> list[tuple[str, float | None, bool]]:
        """Return the fields of each client's `Fate`."""
        return [
            (client.kind, client.fate_at - client.opened_at if client.fate_at else None, client.was_refused)
            for client in self.clients
        ]

    def _open(self, number: int) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        kind = KINDS[number % len(KINDS)]
        if kind == "reader":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.bind((_SOURCES[number % len(_SOURCES)], 0))
        client = _Client(kind, connection)
        client.opened_at = self._now
        # Readers must read now and then; of the others every second one stays silent.
        client.next_at = self._now + _DRIP_EVERY_S if kind == "reader" or number % 2 else 0.0
        self.clients.append(client)
        connection.connect_ex(("127.0.0.1", self._port))
        self._selector.register(connection, selectors.EVENT_WRITE, client)

    def _on_event(self, client: _Client, events: int) -> None:
        if not events & selectors.EVENT_WRITE:
            self._read(client, 4096)
            return
        if client.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            client.was_refused = True
            self._end(client)
            return
        client.opened_at = self._now
        self._selector.unregister(client.connection)
        self._send(client, _START[client.kind])
        if not client.fate_at and client.kind != "reader":
            self._selector.register(client.connection, selectors.EVENT_READ, client)

    def _drip(self) -> None:
        for client in self.clients:
            if client.fate_at or not client.next_at or client.next_at > self._now:
                continue
            client.next_at = self._now + _DRIP_EVERY_S
            if client.kind == "reader":
                self._read(client, 1)
            else:
                self._send(client, b"x")

    def _read(self, client: _Client, size: int) -> None:
        try:
            if not client.connection.recv(size):
                self._end(client)
        except BlockingIOError:
            return
        except OSError:
            self._end(client)

    def _send(self, client: _Client, data: bytes) -> None:
        try:
            client.connection.send(data)
        except BlockingIOError:
            return
        except OSError:
            self._end(client)

    def _end(self, client: _Client) -> None:
        client.fate_at = self._now
        with contextlib.suppress(KeyError):
            self._selector.unregister(client.connection)
        client.connection.close()


def main() -> None:
    """Be slow, then write what happened to each client."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    crowd = _Crowd(arguments.port)
    crowd.run(arguments.clients, arguments.seconds)
    arguments.output.write_text(json.dumps(crowd.fates()))


if __name__ == "__main__":
    main()
