"""Big bodies: an upload read as a stream, a download of many chunks, a reader that stops reading."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.errors import Unavailable
from bench.scenarios.base import Settings, chosen, interleave, median_of
from bench.systems import Probe, Running, System, ask, trygon, uvicorn
from bench.table import Check, Report, ratio

__all__ = ["run_stream", "run_upload"]

_PROBE = Probe("/produced", "GET", b"", None)
_CHUNKS = 10_000
_CHUNK_BYTES = 100


def _systems(settings: Settings) -> list[System]:
    return chosen(
        [
            trygon("trygon", "serve_streams:app", probe=_PROBE),
            uvicorn("starlette", "starlette_app:app", probe=_PROBE),
        ],
        settings,
    )


@dataclass(frozen=True)
class _Upload:
    seconds: float
    growth_bytes: int


def run_upload(settings: Settings) -> Report:
    """Send one big body and watch the memory of all processes."""
    size = 100_000_000 if settings.is_quick else 1_000_000_000
    report = Report(
        "upload", f"Upload of {size / 1e9:g} GB read as a stream", ("system", "MB/s", "PSS growth MB")
    )

    def measure(running: Running) -> _Upload:
        begun = time.monotonic()
        growth = _growth(running, lambda: _send_body(running.port, size))
        return _Upload(time.monotonic() - begun, growth)

    for outcome in interleave(_systems(settings), report, settings, measure):
        name = outcome.system.name
        if not outcome.results:
            report.add_missing(name, outcome.reason)
            continue
        speed = size / 1e6 / (median_of(outcome, lambda upload: upload.seconds) or 1.0)
        growth_mb = max(upload.growth_bytes for upload in outcome.results) / 1e6
        report.rows.append([name, f"{speed:.0f}", f"{growth_mb:.1f}"])
        report.raw += [f"{name}: {u.seconds:.2f} s, {u.growth_bytes / 1e6:.1f} MB" for u in outcome.results]
        if name == "trygon":
            report.checks.append(Check("growth during the upload", growth_mb, 100, "MB", is_floor=False))
    report.notes.append(
        "growth: highest PSS of all processes during the upload less that before, worst round"
    )
    return report


def _growth(running: Running, action: Callable[[], None]) -> int:
    """Return by how much the memory of the system rises while `action` runs."""
    before, highest = running.child.pss_bytes(), 0
    errors: list[Exception] = []

    def act() -> None:
        try:
            action()
        except (OSError, Unavailable) as error:
            errors.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    while thread.is_alive():
        highest = max(highest, running.child.pss_bytes())
        thread.join(0.05)
    if errors:
        raise Unavailable(f"{type(errors[0]).__name__}: {errors[0]}")
    return max(0, highest - before)


def _send_body(port: int, size: int) -> None:
    block = bytes(1_000_000)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = (
            f"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode())
        for _ in range(size // len(block)):
            connection.sendall(block)
        answer = _read_all(connection)
    if b" 200 " not in answer[:20] or f'"bytes":{size}'.encode() not in answer.replace(b" ", b""):
        raise Unavailable(f"the answer to the upload was {answer[:200]!r}")


def _read_all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(262144):
        parts.append(data)
    return b"".join(parts)


@dataclass(frozen=True)
class _Stream:
    chunks_per_s: float
    chunks_on_the_wire: int
    #: Chunks made in the last second of the stall, and the growth from its beginning to its end.
    late_chunks: int
    stall_growth_bytes: int
    #: Chunks made within 1 s after the stalled client left: the generator must have been ended.
    chunks_after_close: int


def run_stream(settings: Settings) -> Report:
    """Read a long stream as fast as it comes, then stop reading an endless one."""
    columns = (
        "system",
        "chunks/s",
        "ratio",
        "chunks on the wire",
        "made while stalled",
        "PSS growth MB",
        "after close",
    )
    report = Report(
        "stream", f"Stream of {_CHUNKS:,} chunks of {_CHUNK_BYTES} bytes, and a reader that stops", columns
    )
    outcomes = interleave(
        _systems(settings), report, settings, lambda running: _measure_stream(running, settings)
    )
    speeds = {o.system.name: median_of(o, lambda stream: stream.chunks_per_s) for o in outcomes}
    for outcome in outcomes:
        name, speed = outcome.system.name, speeds[outcome.system.name]
        if speed is None:
            report.add_missing(name, outcome.reason)
            continue
        last = outcome.results[-1]
        late = max(stream.late_chunks for stream in outcome.results)
        growth_mb = max(stream.stall_growth_bytes for stream in outcome.results) / 1e6
        after = max(stream.chunks_after_close for stream in outcome.results)
        cells = [f"{speed:,.0f}", ratio(speed, speeds.get("starlette")), f"{last.chunks_on_the_wire:,}"]
        report.rows.append([name, *cells, str(late), f"{growth_mb:.1f}", str(after)])
        report.raw += [f"{name}: {stream}" for stream in outcome.results]
        if name == "trygon":
            report.checks.append(
                Check("chunks made in the last second of the stall", late, 0, is_floor=False)
            )
            report.checks.append(Check("growth while stalled", growth_mb, 20, "MB", is_floor=False))
            report.checks.append(Check("chunks made after the client left", after, 0, is_floor=False))
            if base := speeds.get("starlette"):
                report.checks.append(Check("chunks/s of trygon / starlette", speed / base, 0.5))
    report.notes.append(
        "made while stalled: 64 KiB chunks made in the last second of a stall of 4 s, worst round"
    )
    return report


def _measure_stream(running: Running, settings: Settings) -> _Stream:
    path = f"/stream?count={_CHUNKS}&size={_CHUNK_BYTES}"
    _read_stream(running.port, path)
    runs = [_read_stream(running.port, path) for _ in range(3 if settings.is_quick else 10)]
    seconds = statistics.median(run[0] for run in runs)
    late, growth, after = _stall(running)
    return _Stream(_CHUNKS / seconds, runs[-1][1], late, growth, after)


def _read_stream(port: int, path: str) -> tuple[float, int]:
    """Read one stream to its end; return seconds and HTTP chunks. Decoding is not part of the time."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        begun = time.perf_counter()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        data = _read_all(connection)
        seconds = time.perf_counter() - begun
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 200 " not in head[:20] or b"chunked" not in head.lower():
        raise Unavailable(f"the answer to the stream was {head[:200]!r}")
    total, chunks = _decode(body)
    if total != _CHUNKS * _CHUNK_BYTES:
        raise Unavailable(f"the stream had {total} bytes, not {_CHUNKS * _CHUNK_BYTES}")
    return seconds, chunks


def _decode(body: bytes) -> tuple[int, int]:
    at = total = chunks = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return total, chunks
        total, chunks, at = total + size, chunks + 1, end + 2 + size + 2


def _stall(running: Running) -> tuple[int, int, int]:
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        connection.recv(65536)
        # The buffers between generator and reader fill first; they are not growth.
        time.sleep(1)
        before = running.child.pss_bytes()
        time.sleep(2)
        made = _made(running)
        time.sleep(1)
        late, growth = _made(running) - made, running.child.pss_bytes() - before
    # The end needs a moment to reach the generator.
    time.sleep(0.5)
    left = _made(running)
    time.sleep(1)
    return late, max(0, growth), _made(running) - left


def _made(running: Running) -> int:
    status, body = ask(running.port, _PROBE)
    if status != 200:
        raise Unavailable(f"/produced answered {status}")
    count: int = json.loads(body)["chunks"]
    return count
