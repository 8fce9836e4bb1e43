"""JSON echo as one deployment, and in front of a second deployment."""

from __future__ import annotations

import os
from typing import Any

from starlette.requests import Request

from trygon import serve

_LOGGING = {"enable_access_log": os.environ.get("BENCH_ACCESS_LOG") == "1"}


@serve.deployment(max_ongoing_requests=1000, logging_config=_LOGGING)
class Echo:
    """Answers with the JSON value of the request."""

    async def __call__(self, request: Request) -> Any:
        return await request.json()


@serve.deployment(max_ongoing_requests=1000, logging_config=_LOGGING)
class Downstream:
    """Called through a handle; gives back what it gets."""

    async def __call__(self, value: Any) -> Any:
        return value


@serve.deployment(max_ongoing_requests=1000, logging_config=_LOGGING)
class Front:
    """Takes the request and asks the downstream deployment for the answer."""

    def __init__(self, downstream: Any) -> None:
        self.downstream = downstream

    async def __call__(self, request: Request) -> Any:
        return await self.downstream.remote(await request.json())


echo = Echo.bind()
chain = Front.bind(Downstream.bind())
