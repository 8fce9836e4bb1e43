"""A handler that takes 50 ms, on as many replicas as its load needs."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from trygon import serve

#: Requests in work for each replica.
TARGET = 2
UP_S = 2.0
DOWN_S = 4.0
WORK_S = 0.05


@serve.deployment(
    max_ongoing_requests=20,
    logging_config={"enable_access_log": False},
    autoscaling_config={
        "min_replicas": 0,
        "max_replicas": 20,
        "target_ongoing_requests": TARGET,
        "upscale_delay_s": UP_S,
        "downscale_delay_s": DOWN_S,
        "look_back_period_s": 1.0,
        "metrics_interval_s": 0.25,
    },
)
class Work:
    """Waits, as for another service."""

    async def __call__(self, _: Request) -> str:
        await asyncio.sleep(WORK_S)
        return "done"


app = Work.bind()
