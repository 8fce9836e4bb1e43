"""An open-loop sender: requests leave on time whatever the server does, and each answer is kept.

A closed-loop tool such as wrk waits for the answer before it sends again, and so hides an outage.
Runs as a process of its own: ``python -m bench.load --port P --seconds S --output FILE TARGET...``,
where a TARGET is ``NAME=PATH@RPS``, or ``NAME=PATH@RPS!`` for a new connection with each request;
``NAME=POST:PATH@RPS`` sends a small JSON body, ``NAME=PATH@RPS|LINE`` one more header line. SIGTERM ends the sending early, nothing is lost by it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from bench.errors import BenchError
from bench.processes import Child, spawn

__all__ = ["Sample", "Target", "begin", "finish", "stop"]

#: A request that has no answer by then counts as hung.
TIMEOUT_S = 10.0
_MAX_CONNECTIONS = 4000
_POST_BODY = b'{"x": 1}'


@dataclass(frozen=True)
class Target:
    """One stream of requests."""

    name: str
    path: str
    rps: float
    is_fresh: bool = False
    #: Sends a small JSON body.
    is_post: bool = False
    #: One more header line, such as "X-Tenant: a".
    header: str = ""

    def text(self) -> str:
        """Return it as a command line argument."""
        method = "POST:" if self.is_post else ""
        header = f"|{self.header}" if self.header else ""
        return f"{self.name}={method}{self.path}@{self.rps:g}{'!' if self.is_fresh else ''}{header}"

    def payload(self, port: int) -> bytes:
        """Return the bytes of one request."""
        head = f"{'POST' if self.is_post else 'GET'} {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        if self.header:
            head += f"{self.header}\r\n"
        if not self.is_post:
            return f"{head}\r\n".encode()
        fields = f"Content-Type: application/json\r\nContent-Length: {len(_POST_BODY)}\r\n"
        return f"{head}{fields}\r\n".encode() + _POST_BODY


@dataclass(frozen=True)
class Sample:
    """One request."""

    target: str
    #: When it was sent (monotonic clock, the same in all processes of the machine).
    at: float
    latency_s: float
    #: "200", another status, or "refused", "reset", "closed", "timeout", "exhausted".
    outcome: str
    body: str
    #: Of the header of that name; None when there is none.
    retry_after: str | None = None

    @property
    def is_good(self) -> bool:
        """Tell whether the answer was 200."""
        return self.outcome == "200"

    @property
    def ended_at(self) -> float:
        """When the answer was complete, or the failure seen."""
        return self.at + self.latency_s


@dataclass(frozen=True)
class Load:
    """A sender at work."""

    child: Child
    output: Path
    seconds: float
    started_at: float


def begin(port: int, targets: Sequence[Target], seconds: float, folder: Path) -> Load:
    """Start a sender and return when its first requests leave."""
    output = folder / "samples.json"
    command = [sys.executable, "-m", "bench.load", "--port", str(port), "--seconds", f"{seconds:g}"]
    command += ["--output", str(output), *(target.text() for target in targets)]
    root = Path(__file__).resolve().parent.parent
    child = spawn(command, cwd=root, stdout=subprocess.PIPE, log_path=folder / "sender.log")
    assert child.process.stdout is not None
    if child.process.stdout.readline().strip() != b"started":
        child.end()
        raise BenchError(f"the sender did not start; {child.last_words()}")
    return Load(child, output, seconds, time.monotonic())


def stop(load: Load) -> list[Sample]:
    """End the sending now and return everything the sender saw."""
    load.child.process.send_signal(signal.SIGTERM)
    return finish(load)


def finish(load: Load) -> list[Sample]:
    """Wait for the sender and return everything it saw."""
    try:
        load.child.process.wait(load.seconds + TIMEOUT_S + 30)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the sender did not end; {load.child.last_words()}") from error
    finally:
        load.child.end(grace_s=1)
        if load.child.process.stdout is not None:
            load.child.process.stdout.close()
    if load.child.process.returncode != 0:
        raise BenchError(
            f"the sender ended with status {load.child.process.returncode}; {load.child.last_words()}"
        )
    return [Sample(*fields) for fields in json.loads(load.output.read_text())]


class _Request:
    """One request on its way; `done` is called once."""

    __slots__ = ("at", "done", "payload", "retry_after", "target", "timer")

    def __init__(self, target: Target, payload: bytes, done: Callable[[_Request, str, bytes], None]) -> None:
        self.target = target
        self.payload = payload
        self.done = done
        self.at = time.monotonic()
        self.timer: asyncio.TimerHandle | None = None
        self.retry_after: str | None = None


class _Connection(asyncio.Protocol):
    """One connection that carries one request at a time."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._transport: asyncio.Transport | None = None
        self._request: _Request | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: _Request) -> None:
        assert self._transport is not None
        self._request = request
        self._buffer.clear()
        self._transport.write(request.payload)

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        request = self._request
        answer = _complete(self._buffer)
        if request is None or answer is None:
            return
        status, body, keeps = answer
        if status[:1] in "45":
            request.retry_after = _header(self._buffer, b"retry-after")
        self._request = None
        if keeps and not request.target.is_fresh:
            self._sender.idle.append(self)
        elif self._transport is not None:
            self._transport.close()
        request.done(request, status, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sender.lost(self)
        request, self._request = self._request, None
        if request is not None:
            request.done(request, "reset" if exc else "closed", b"")


def _complete(buffer: bytearray) -> tuple[str, bytes, bool] | None:
    """Return status, body and "keeps the connection" once the answer is whole."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[:end]).lower()
    keeps = b"connection: close" not in head
    body = bytes(buffer[end + 4 :])
    status = head[9:12].decode()
    if b"transfer-encoding: chunked" in head:
        whole = _unchunked(body)
        return None if whole is None else (status, whole, keeps)
    at = head.find(b"content-length:")
    if at < 0:
        return status, body, keeps
    length = int(head[at + 15 :].split(b"\r\n", 1)[0])
    return (status, body, keeps) if len(body) >= length else None


def _header(buffer: bytearray, name: bytes) -> str | None:
    lines = bytes(buffer.partition(b"\r\n\r\n")[0]).split(b"\r\n")
    found = [line.partition(b":")[2] for line in lines if line.lower().startswith(name + b":")]
    return sys.intern(found[0].strip().decode()) if found else None


def _unchunked(body: bytes) -> bytes | None:
    """Return the bytes of a chunked body, or None while it is not complete."""
    whole, at = b"", 0
    while (end := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:end], 16)
        if size == 0:
            return whole if body.endswith(b"\r\n\r\n") else None
        whole += body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
    return None


class _Sender:
    """Sends every target's requests on schedule."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pending: dict[_Request, _Connection | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_open = 0
        self._is_stopping = False
        self.idle: list[_Connection] = []
        self.samples: list[tuple[str, float, float, str, str, str | None]] = []

    async def run(self, targets: Sequence[Target], seconds: float) -> None:
        """Send for `seconds`, then wait until each request has its answer or is late."""
        begun = time.monotonic() + 0.1
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        print("started", flush=True)
        # Each begins a little later than the one before: streams of one rate would else send in pairs.
        await asyncio.gather(
            *(
                self._stream(target, begun + number / len(targets) / target.rps, seconds)
                for number, target in enumerate(targets)
            )
        )
        while self._pending:
            await asyncio.sleep(0.05)
        for connection in list(self.idle):
            connection.drop()

    def _stop(self) -> None:
        self._is_stopping = True

    async def _stream(self, target: Target, begun: float, seconds: float) -> None:
        payload = target.payload(self._port)
        for number in itertools.count():
            due = begun + number / target.rps
            if due > begun + seconds:
                return
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            if self._is_stopping:
                return
            self._send(_Request(target, payload, self._done))

    def _send(self, request: _Request) -> None:
        loop = asyncio.get_running_loop()
        self._pending[request] = None
        request.timer = loop.call_later(TIMEOUT_S, self._late, request)
        if self.idle and not request.target.is_fresh:
            connection = self.idle.pop()
            self._pending[request] = connection
            connection.send(request)
        elif self._num_open >= _MAX_CONNECTIONS:
            self._done(request, "exhausted", b"")
        else:
            self._num_open += 1
            task = loop.create_task(self._connect(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, request: _Request) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        except OSError as error:
            self._num_open -= 1
            self._done(request, "refused" if isinstance(error, ConnectionRefusedError) else "connect", b"")
            return
        if request in self._pending:
            self._pending[request] = connection
            connection.send(request)
        else:
            connection.drop()

    def _late(self, request: _Request) -> None:
        connection = self._pending.get(request)
        self._done(request, "timeout", b"")
        if connection is not None:
            connection.drop()

    def _done(self, request: _Request, outcome: str, body: bytes) -> None:
        if request not in self._pending:
            return
        del self._pending[request]
        if request.timer is not None:
            request.timer.cancel()
        latency_s = time.monotonic() - request.at
        # Interned: the answers of a long run are few different ones, in hundreds of thousands.
        text = sys.intern(body[:120].decode(errors="replace"))
        self.samples.append(
            (request.target.name, request.at, latency_s, sys.intern(outcome), text, request.retry_after)
        )

    def lost(self, connection: _Connection) -> None:
        """Forget a closed connection."""
        self._num_open -= 1
        if connection in self.idle:
            self.idle.remove(connection)


def _target(text: str) -> Target:
    text, _, header = text.partition("|")
    name, _, rest = text.partition("=")
    path, _, rate = rest.rpartition("@")
    is_post = path.startswith("POST:")
    return Target(
        name, path.removeprefix("POST:"), float(rate.rstrip("!")), rate.endswith("!"), is_post, header
    )


def main() -> None:
    """Send, then write the samples."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("targets", nargs="+", type=_target)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    # A collection would look like a slow server.
    gc.disable()
    sender = _Sender(arguments.port)
    # uvloop: the sender takes a processor from the servers, so it is to be cheap.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(sender.run(arguments.targets, arguments.seconds))
    arguments.output.write_text(json.dumps(sender.samples))


if __name__ == "__main__":
    main()
