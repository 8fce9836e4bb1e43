"""One replica with the defaults, and the same with tenants that take turns."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from trygon import serve

#: A replica works on 5 requests at a time unless told otherwise, so its capacity is 250 a second.
SERVICE_S = 0.02
CAPACITY_RPS = 5 / SERVICE_S


@serve.deployment(logging_config={"enable_access_log": False})
class Waits:
    """Awaits 20 ms, as a handler that calls a model elsewhere does."""

    async def __call__(self, _: Request) -> dict[str, bool]:
        await asyncio.sleep(SERVICE_S)
        return {"ok": True}


app = Waits.bind()
fair_app = Waits.options(request_queue_config={"fairness_key": "header:x-tenant"}).bind()
