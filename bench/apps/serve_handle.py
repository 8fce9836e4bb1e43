"""Time handle calls from a script against a pipe between two processes; prints one JSON line.

``serve_handle.py --calls N --port P``: both are timed in alternating blocks, so that they share the noise.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

from trygon import serve

_VALUE = {"x": 1}
_BLOCKS = 10


@serve.deployment(max_ongoing_requests=100)
class Echo:
    """Gives back what it gets, or blocks a thread."""

    async def __call__(self, value: Any) -> Any:
        return value

    def block(self, seconds: float) -> None:
        """Sleep in a plain method."""
        time.sleep(seconds)


def _answer(connection: Connection) -> None:
    while (value := connection.recv()) is not None:
        connection.send(value)


def _time_pipe(connection: Connection, calls: int) -> list[float]:
    seconds = []
    for _ in range(calls):
        begun = time.perf_counter()
        connection.send(_VALUE)
        connection.recv()
        seconds.append(time.perf_counter() - begun)
    return seconds


def _time_handle(handle: Any, calls: int) -> list[float]:
    seconds = []
    for _ in range(calls):
        begun = time.perf_counter()
        handle.remote(_VALUE).result(timeout_s=10)
        seconds.append(time.perf_counter() - begun)
    return seconds


def _time_cancel(handle: Any) -> tuple[float, str]:
    """Cancel a call whose handler blocks for 5 s; return how long the caller waits then, and for what."""
    response = handle.block.remote(5.0)
    time.sleep(0.5)
    begun = time.perf_counter()
    response.cancel()
    try:
        response.result(timeout_s=10)
    except Exception as error:  # whatever the system raises is the finding
        return time.perf_counter() - begun, type(error).__name__
    return time.perf_counter() - begun, "no error"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    # Before anything has threads: it is forked.
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    other = multiprocessing.get_context("fork").Process(target=_answer, args=(theirs,), daemon=True)
    other.start()
    serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
    handle = serve.run(Echo.bind())
    pipe_s, handle_s = [], []
    _time_pipe(ours, 200)
    _time_handle(handle, 200)
    for _ in range(_BLOCKS):
        pipe_s += _time_pipe(ours, arguments.calls // _BLOCKS)
        handle_s += _time_handle(handle, arguments.calls // _BLOCKS)
    cancel_s, cancel_error = _time_cancel(handle)
    ours.send(None)
    serve.shutdown()
    found = {"pipe_s": pipe_s, "handle_s": handle_s, "cancel_s": cancel_s, "cancel_error": cancel_error}
    print("RESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
