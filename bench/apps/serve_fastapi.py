"""JSON echo as a deployment with a FastAPI ingress."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI, Request

from trygon import serve

api = FastAPI()


@serve.deployment(
    max_ongoing_requests=1000, logging_config={"enable_access_log": os.environ.get("BENCH_ACCESS_LOG") == "1"}
)
@serve.ingress(api)
class Echo:
    """Answers with the JSON value of the request."""

    @api.post("/")
    async def echo(self, request: Request) -> Any:
        """Answer with the JSON value of the request."""
        return await request.json()


app = Echo.bind()
