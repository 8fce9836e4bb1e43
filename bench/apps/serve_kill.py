"""Four replicas that say which process answered."""

from __future__ import annotations

import asyncio
import os

from starlette.requests import Request

from trygon import serve


@serve.deployment(num_replicas=4, max_ongoing_requests=100, logging_config={"enable_access_log": False})
class WhoAnswers:
    """Works for 10 ms, so that there is always something in flight, and answers with its process id."""

    async def __call__(self, _: Request) -> dict[str, int]:
        await asyncio.sleep(0.01)
        return {"pid": os.getpid()}


app = WhoAnswers.bind()
