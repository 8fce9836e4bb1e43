"""One deployment sends a 100 MB numpy array to another through a handle and gets its sum back."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from starlette.requests import Request

from trygon import serve

SIZE_BYTES = 100_000_000


@serve.deployment(max_ongoing_requests=10)
class Summer:
    """Adds up an array."""

    async def __call__(self, array: Any) -> float:
        return float(array.sum())


@serve.deployment(max_ongoing_requests=10)
class Sender:
    """Sends the array `calls` times and tells how long each call took."""

    def __init__(self, summer: Any) -> None:
        self.summer = summer
        self.array = np.ones(SIZE_BYTES // 8)

    async def __call__(self, request: Request) -> dict[str, Any]:
        seconds = []
        for _ in range(int(request.query_params.get("calls", 1))):
            begun = time.perf_counter()
            total = await self.summer.remote(self.array)
            seconds.append(time.perf_counter() - begun)
            if total != self.array.size:
                raise RuntimeError(f"the sum is {total!r}, not {self.array.size}")
        return {"seconds": seconds}


app = Sender.bind(Summer.bind())
