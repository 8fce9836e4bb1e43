"""As many replicas as the load needs: none at night, one for a visitor, more for a crowd.

Run ``python -m examples.autoscaling`` and you will see::

    nobody is here: 0 replicas
    the first visitor's answer: 35.6, after the first replica had started
    a crowd of 12: 4 replicas
    nobody is here again: 0 replicas

To keep it running: ``trygon run examples.autoscaling:app``, send requests to http://127.0.0.1:8000/, and watch
``trygon status --watch`` and ``trygon explain default``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from starlette.requests import Request

from trygon import serve

URL = "http://127.0.0.1:8000"


@serve.deployment(
    max_ongoing_requests=20,
    autoscaling_config={
        "min_replicas": 0,
        "max_replicas": 4,
        "target_ongoing_requests": 2,
        # Seconds instead of minutes, so that there is something to watch.
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 1,
        "look_back_period_s": 0.5,
        "metrics_interval_s": 0.1,
    },
)
class Converter:
    """Convert a temperature, slowly."""

    async def __call__(self, request: Request) -> float:
        """Answer HTTP: ``?celsius=NUMBER``."""
        await asyncio.sleep(0.05)
        return float(request.query_params.get("celsius", "0")) * 9 / 5 + 32


app = Converter.bind()


def num_replicas() -> int:
    """Return how many replicas answer requests now."""
    return serve.status().applications["default"].deployments["Converter"].replica_states.get("RUNNING", 0)


def wait_for(count: int, timeout_s: float = 30.0) -> None:
    """Wait until so many replicas answer requests."""
    deadline = time.monotonic() + timeout_s
    while num_replicas() != count and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def crowd(size: int) -> Iterator[None]:
    """Let so many visitors ask again and again for the length of the block."""
    is_over = threading.Event()

    def visit() -> None:
        with httpx.Client(timeout=20) as client:
            while not is_over.is_set():
                client.get(URL, params={"celsius": "2"}).raise_for_status()

    visitors = [threading.Thread(target=visit) for _ in range(size)]
    for visitor in visitors:
        visitor.start()
    try:
        yield
    finally:
        is_over.set()
        for visitor in visitors:
            visitor.join()


def main() -> None:
    """Send nobody, one visitor, a crowd, and nobody again."""
    serve.run(app)
    print(f"nobody is here: {num_replicas()} replicas")
    answer = httpx.get(URL, params={"celsius": "2"}, timeout=20).json()
    print(f"the first visitor's answer: {answer}, after the first replica had started")
    with crowd(12):
        wait_for(4)
        print(f"a crowd of 12: {num_replicas()} replicas")
    wait_for(0)
    print(f"nobody is here again: {num_replicas()} replicas")
    serve.shutdown()


if __name__ == "__main__":
    main()
