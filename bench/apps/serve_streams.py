"""Upload, a long stream and an endless stream, the same as in ``starlette_app.py``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from trygon import serve


@serve.deployment(max_ongoing_requests=1000, logging_config={"enable_access_log": False})
class Streams:
    """Answers by the path."""

    def __init__(self) -> None:
        self.produced = 0

    async def __call__(self, request: Request) -> Any:
        if request.url.path == "/upload":
            return {"bytes": await self.count_bytes(request)}
        if request.url.path == "/stream":
            count, size = int(request.query_params["count"]), int(request.query_params["size"])
            return StreamingResponse(self.chunks(count, size), media_type="application/octet-stream")
        if request.url.path == "/endless":
            return StreamingResponse(self.endless(), media_type="application/octet-stream")
        return {"chunks": self.produced}

    async def count_bytes(self, request: Request) -> int:
        """Read the body as it comes."""
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
        return received

    async def chunks(self, count: int, size: int) -> AsyncIterator[bytes]:
        """Make `count` chunks of `size` bytes."""
        chunk = b"x" * size
        for _ in range(count):
            yield chunk

    async def endless(self) -> AsyncIterator[bytes]:
        """Make chunks of 64 KiB for as long as the client reads."""
        chunk = b"x" * 65536
        while True:
            self.produced += 1
            yield chunk
            await asyncio.sleep(0)


app = Streams.bind()
