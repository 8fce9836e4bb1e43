"""Metrics: a counter of the application's own, and the traffic that the instance counts by itself.

Run ``python -m examples.metrics`` and you will see::

    sold 3 pears and 1 plum
    4 requests in the last minute: True
    half of them took less than a second: True

To look at all numbers: ``trygon run examples.metrics:app --admin-port 8265``, then
``curl http://127.0.0.1:8265/metrics``.
"""

from __future__ import annotations

import threading

import httpx
from starlette.requests import Request

from trygon import serve
from trygon.serve.schema import Traffic

URL = "http://127.0.0.1:8000"


@serve.deployment
class Shop:
    """Sell fruit, and count what is sold by kind."""

    def __init__(self) -> None:
        self.sold: dict[str, int] = {}
        # Scraped as trygon_fruit_sold_total, with the labels application, deployment, replica and kind.
        self.counter = serve.metrics.Counter("fruit_sold", "Fruit sold by kind.", tag_keys=("kind",))

    async def __call__(self, request: Request) -> dict[str, int]:
        """Sell one: ``?kind=pear``."""
        kind = request.query_params["kind"]
        # A tag is a series for ever: give it few values, never what a client may invent.
        kind = kind if kind in ("pear", "plum") else "other"
        self.counter.inc(tags={"kind": kind})
        self.sold[kind] = self.sold.get(kind, 0) + 1
        return self.sold


app = Shop.bind()


def wait_traffic() -> Traffic:
    """Return the traffic as soon as it is published, which takes a second at most."""
    pause = threading.Event()
    for _ in range(100):
        traffic = serve.status().applications["default"].traffic
        if traffic is not None and traffic.p50_ms is not None:
            return traffic
        pause.wait(0.1)
    raise TimeoutError("no traffic was published within 10 s")


def main() -> None:
    """Sell four pieces and look at the numbers."""
    serve.run(app)
    sold: dict[str, int] = {}
    for kind in ("pear", "pear", "plum", "pear"):
        sold = httpx.get(URL, params={"kind": kind}).json()
    print(f"sold {sold['pear']} pears and {sold['plum']} plum")
    traffic = wait_traffic()
    print(f"{sum(sold.values())} requests in the last minute: {traffic.requests_per_s > 0}")
    print(f"half of them took less than a second: {(traffic.p50_ms or 0) < 1000}")
    serve.shutdown()


if __name__ == "__main__":
    main()
