"""A small answer and a big one, with few slots: slow clients must not hold them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from trygon import serve

_BIG = b"x" * 131072


@serve.deployment(max_ongoing_requests=5, logging_config={"enable_access_log": False})
class Pages:
    """Answers /big with 128 KiB and everything else with a few bytes, after reading the body."""

    async def __call__(self, request: Request) -> Any:
        if request.url.path == "/big":
            return Response(_BIG)
        return {"bytes": len(await request.body())}


app = Pages.bind()
