"""JSON echo as a deployment with a FastAPI ingress.

Without ``from __future__ import annotations``: on Ray Serve, FastAPI cannot resolve such annotations in the
pickled application, and takes `request` for a query parameter.
"""

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
