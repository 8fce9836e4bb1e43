"""Tenants take turns, and urgent requests go first: one customer's flood is no other customer's problem.

The model below answers one request at a time. A big customer asks forty times at once, then a small one asks once.

Run ``python -m examples.tenants`` and you will see::

    the small customer among the first ten: True
    the urgent request among the first five: True
    the big customer was answered 40 times

To keep it running: ``trygon run examples.tenants:app``, then ``curl -H "X-Tenant: small" http://127.0.0.1:8000/``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from trygon import serve
from trygon.serve.config import RequestQueueConfig

URL = "http://127.0.0.1:8000"

BIG = {"X-Tenant": "big"}
SMALL = {"X-Tenant": "small"}
URGENT = {"X-Tenant": "other", "X-Priority": "urgent"}


@serve.deployment(
    max_ongoing_requests=1,
    request_queue_config=RequestQueueConfig(
        fairness_key="header:x-tenant",
        priority="header:x-priority",
        priorities={"urgent": 1},
    ),
)
class Model:
    """Take 50 ms for an answer."""

    async def __call__(self) -> str:
        """Answer HTTP."""
        await asyncio.sleep(0.05)
        return "done"


app = Model.bind()


async def ask(url: str) -> list[str]:
    """Send the requests of all customers, and return whose were answered, in this order."""
    answered: list[str] = []

    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=None)) as client:

        async def one(headers: Mapping[str, str]) -> None:
            answer = await client.get(url, headers=headers)
            answer.raise_for_status()
            answered.append(headers["X-Tenant"])

        await asyncio.gather(*map(one, [BIG] * 40 + [SMALL, URGENT]))
    return answered


def main() -> None:
    """Show who is answered when."""
    serve.run(app)
    answered = asyncio.run(ask(URL))
    print("the small customer among the first ten:", "small" in answered[:10])
    print("the urgent request among the first five:", "other" in answered[:5])
    print("the big customer was answered", answered.count("big"), "times")
    serve.shutdown()


if __name__ == "__main__":
    main()
