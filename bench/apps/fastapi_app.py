"""JSON echo on FastAPI."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

app = FastAPI()


@app.post("/")
async def echo(request: Request) -> Any:
    """Answer with the JSON value of the request."""
    return await request.json()
