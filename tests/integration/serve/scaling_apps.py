"""Deployments whose number of replicas follows their load, and policies that read what to say from a file."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from trygon import serve

QUICK: dict[str, Any] = {
    "min_replicas": 1,
    "max_replicas": 8,
    "target_ongoing_requests": 2,
    "upscale_delay_s": 0.5,
    "downscale_delay_s": 0.5,
    "look_back_period_s": 0.4,
    "metrics_interval_s": 0.1,
}


@serve.deployment(max_ongoing_requests=20, autoscaling_config=QUICK)
class Busy:
    """Takes 50 ms and says who answered."""

    async def __call__(self, _: Any = None) -> int:
        await asyncio.sleep(0.05)
        return os.getpid()


@serve.deployment
class Parent:
    """Passes calls on."""

    def __init__(self, child: Any) -> None:
        self._child = child

    async def __call__(self, _: Any = None) -> int:
        found: int = await self._child.remote()
        return found


class Told:
    """Says what stands in a file, made once for each deployment."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def __call__(self, context: Any) -> tuple[Any, dict[str, Any]]:
        said = self._path.read_text()
        calls = context.policy_state.get("calls", 0) + 1
        if said == "fail":
            raise ValueError(f"no metrics in call {calls}")
        if said == "end":
            os._exit(3)
        if said == "hang":
            time.sleep(3600)
        return (said if said == "nonsense" else int(said)), {"calls": calls, "pid": os.getpid()}


def tell_all(contexts: dict[Any, Any], *, counts: dict[str, int]) -> tuple[dict[Any, int], None]:
    """Give each deployment the number that is written for it."""
    return {key: counts[key.name] for key in contexts if key.name in counts}, None


@serve.deployment
class Watched:
    """Has numbers of its own."""

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {"backlog": 6}

    def __call__(self, _: Any = None) -> int:
        return os.getpid()


def by_backlog(context: Any) -> tuple[int, dict[str, Any]]:
    """Have a replica for every two things in the backlog that the replicas tell of."""
    told = context.raw_metrics.get("backlog", {}).values()
    return (max(values[-1].value for values in told) // 2 if told else 1), {}
