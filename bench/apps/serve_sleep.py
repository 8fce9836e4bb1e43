"""A deployment that takes as long as it is told, and is slow to start."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request

from trygon import serve

__all__ = ["Sleeper"]


@serve.deployment
class Sleeper:
    """Sleeps for the seconds of the query `s`.

    Args:
        start_s: How long the constructor takes.
    """

    def __init__(self, start_s: float) -> None:
        time.sleep(start_s)

    async def __call__(self, request: Request) -> str:
        """Sleep, and say nothing of it."""
        await asyncio.sleep(float(request.query_params["s"]))
        return "ok"
