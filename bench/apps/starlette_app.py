"""The comparison programs on Starlette: echo, upload, a long stream, an endless stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

_produced = 0


async def echo(request: Request) -> JSONResponse:
    """Answer with the JSON value of the request."""
    return JSONResponse(await request.json())


async def upload(request: Request) -> JSONResponse:
    """Count the bytes of the body as they come."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
    return JSONResponse({"bytes": received})


async def _chunks(count: int, size: int) -> AsyncIterator[bytes]:
    chunk = b"x" * size
    for _ in range(count):
        yield chunk


async def stream(request: Request) -> StreamingResponse:
    """Send `count` chunks of `size` bytes."""
    count, size = int(request.query_params["count"]), int(request.query_params["size"])
    return StreamingResponse(_chunks(count, size), media_type="application/octet-stream")


async def _endless() -> AsyncIterator[bytes]:
    global _produced
    chunk = b"x" * 65536
    while True:
        _produced += 1
        yield chunk
        # Real ones wait for something; one that never waits starves uvicorn's loop when the client has gone.
        await asyncio.sleep(0)


async def endless(_: Request) -> StreamingResponse:
    """Send chunks of 64 KiB for as long as the client reads."""
    return StreamingResponse(_endless(), media_type="application/octet-stream")


async def produced(_: Request) -> JSONResponse:
    """Tell how many chunks `endless` has made."""
    return JSONResponse({"chunks": _produced})


app = Starlette(
    routes=[
        Route("/", echo, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/endless", endless),
        Route("/produced", produced),
    ]
)
