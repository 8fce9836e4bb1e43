"""The adaptive policy: say how long a request may wait, and let the number of replicas follow.

Run ``python -m examples.adaptive`` and you will see::

    one replica to begin with
    a crowd of 12, 2 for each replica: 6 replicas
    100 answers, every one of them right

To keep it running: ``trygon run examples.adaptive:app``, send requests to http://127.0.0.1:8000/, and ask
``trygon explain default`` why there are so many. What it makes of your own traffic: ``trygon simulate --help``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from starlette.requests import Request

from trygon import serve
from trygon.serve.autoscaling_policy import AdaptivePolicy

URL = "http://127.0.0.1:8000"


@serve.deployment(
    max_ongoing_requests=2,
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 6,
        # What a replica works on at once.
        "target_ongoing_requests": 2,
        # 95 % of the requests wait no longer than 20 ms.
        "policy": AdaptivePolicy(wait_s=0.02, quantile=0.95),
    },
)
class Converter:
    """Convert a temperature, slowly."""

    async def __call__(self, request: Request) -> float:
        """Answer HTTP: ``?celsius=NUMBER``."""
        await asyncio.sleep(0.1)
        return float(request.query_params.get("celsius", "0")) * 9 / 5 + 32


app = Converter.bind()


def num_replicas() -> int:
    """Return how many replicas answer requests now."""
    return serve.status().applications["default"].deployments["Converter"].replica_states.get("RUNNING", 0)


def ask(client: httpx.Client, number: int) -> bool:
    """Tell whether an answer is right."""
    answer = client.get(URL, params={"celsius": str(number)})
    return bool(answer.json() == number * 9 / 5 + 32)


def visit(client: httpx.Client, is_over: threading.Event) -> None:
    """Ask again and again."""
    while not is_over.is_set():
        ask(client, 1)


def main() -> None:
    """Send a crowd, and wait until there are replicas enough for it."""
    serve.run(app)
    print("one replica to begin with" if num_replicas() == 1 else "more than one replica")
    is_over = threading.Event()
    with httpx.Client(timeout=20) as client, ThreadPoolExecutor(24) as crowd:
        for _ in range(12):
            crowd.submit(visit, client, is_over)
        deadline = time.monotonic() + 30
        while num_replicas() < 6 and time.monotonic() < deadline:
            time.sleep(0.05)
        print(f"a crowd of 12, 2 for each replica: {num_replicas()} replicas")
        is_over.set()
        answers = list(crowd.map(lambda number: ask(client, number), range(100)))
    print(f"{len(answers)} answers, {'every one of them' if all(answers) else 'not all'} right")
    serve.shutdown()


if __name__ == "__main__":
    main()
