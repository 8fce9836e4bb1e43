"""Reading `/metrics` as Prometheus does, and applications that are worth a look."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from tests.integration.admin.conftest import Admin
from tests.waiting import wait_until
from trygon import serve

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def scrape(admin: Admin) -> Samples:
    """Return every sample by name and labels."""
    with admin.stranger as client:
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples that have these labels."""
    return sum(n for found, n in samples.get(name, {}).items() if frozenset(labels.items()) <= found)


def wait_for(admin: Admin, condition: Callable[[Samples], bool], what: str) -> Samples:
    """Scrape until it holds: numbers are at most about a second old."""
    seen: list[Samples] = [{}]

    def holds() -> bool:
        seen[0] = scrape(admin)
        return condition(seen[0])

    wait_until(holds, what)
    return seen[0]


@serve.deployment
class Shop:
    """Counts what it sells, in a metric of its own."""

    def __init__(self, stock: serve.handle.DeploymentHandle) -> None:
        self._stock = stock
        self._sold = serve.metrics.Counter("sold", "Things sold.", tag_keys=("kind",))

    async def __call__(self, request: Request) -> int:
        if request.url.path.endswith("broken"):
            raise ValueError("broken")
        if request.url.path.endswith("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        self._sold.inc(tags={"kind": "pear"})
        return await self._stock.take.remote(1)


@serve.deployment
class Stock:
    """Gives what it has."""

    def take(self, count: int) -> int:
        return count
