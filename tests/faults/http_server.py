"""The HTTP front over canned applications, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Server", "serve"]


@dataclass
class Server:
    """A running server."""

    process: psutil.Process
    port: int
    log: Path

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(source, 0))

    def ask(self, raw: bytes = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") -> bytes:
        """Send a request that ends its connection, and return all that comes back."""
        answer = b""
        with self.connect() as sock:
            sock.sendall(raw)
            while data := sock.recv(65536):
                answer += data
        return answer


@contextmanager
def serve(folder: Path, *args: str) -> Iterator[Server]:
    """Serve for the time of a test; whatever the server writes to its log fails the test."""
    log = folder / "server.log"
    command = [sys.executable, "-m", "trygon.testing.gateway", "--port", "0", *args]
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on"), log.read_text()
            yield Server(psutil.Process(process.pid), int(line.rsplit(":", 1)[1]), log)
            assert process.poll() is None, "the server has ended"
        finally:
            process.terminate()
            process.wait(10)
    assert "" == log.read_text()
