"""A weighted ensemble that survives a failing member and names it.

Three small models forecast the next value of a series. The one that takes logarithms
cannot answer when a value is zero; the others then share its weight.

Run ``python -m examples.ensemble`` and you will see::

    [2, 8, 32] -> 75.5 from mean, last, growth; failed: {}
    [0, 4, 8] -> 6.0 from mean, last; failed: {'growth': 'ValueError: a value is not above zero'}

To keep it running: ``trygon run examples.ensemble:app``, then
``curl -d "[2, 8, 32]" http://127.0.0.1:8000/``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import httpx
from starlette.requests import Request

from trygon import serve
from trygon.serve.handle import DeploymentHandle

URL = "http://127.0.0.1:8000"


@serve.deployment
class Mean:
    """Forecast the mean of the series."""

    def forecast(self, series: list[float]) -> float:
        """Return the next value."""
        return sum(series) / len(series)


@serve.deployment
class Last:
    """Forecast that nothing changes."""

    def forecast(self, series: list[float]) -> float:
        """Return the next value."""
        return series[-1]


@serve.deployment
class Growth:
    """Forecast that the series goes on growing at its mean rate."""

    def forecast(self, series: list[float]) -> float:
        """Return the next value; a ValueError if a value is not above zero."""
        if min(series) <= 0:
            raise ValueError("a value is not above zero")
        logs = [math.log(value) for value in series]
        return math.exp(logs[-1] + (logs[-1] - logs[0]) / (len(logs) - 1))


@serve.deployment
class WeightedEnsemble:
    """Ask all members at once; leave out those that fail, and say which.

    Args:
        members: Each name with its weight and its handle.
        timeout_s: A member that has not answered by then has failed.
    """

    def __init__(self, members: Mapping[str, tuple[float, DeploymentHandle]], timeout_s: float = 5) -> None:
        self.members = members
        self.timeout_s = timeout_s

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answer HTTP: the body is a JSON list of numbers."""
        return await self.forecast(await request.json())

    async def forecast(self, series: list[float]) -> dict[str, Any]:
        """Return the weighted mean of the members that answered."""
        answers = await asyncio.gather(
            *(self.ask(handle, series) for _, handle in self.members.values()), return_exceptions=True
        )
        used: dict[str, float] = {}
        failed: dict[str, str] = {}
        for name, answer in zip(self.members, answers, strict=True):
            if isinstance(answer, Exception):
                failed[name] = describe(answer)
            elif isinstance(answer, BaseException):  # a cancellation is not the member's failure
                raise answer
            else:
                used[name] = answer
        if not used:
            raise RuntimeError(f"every member failed: {failed}")
        weight = sum(self.members[name][0] for name in used)
        forecast = sum(self.members[name][0] * value for name, value in used.items()) / weight
        return {"forecast": round(forecast, 6), "used": list(used), "failed": failed}

    async def ask(self, member: DeploymentHandle, series: list[float]) -> float:
        """Return one member's forecast, or raise TimeoutError."""
        async with asyncio.timeout(self.timeout_s):
            answer: float = await member.forecast.remote(series)
            return answer


def describe(error: Exception) -> str:
    """Name an error in a line: an error that crossed a process keeps the original in `cause`."""
    original = getattr(error, "cause", None) or error
    return f"{type(original).__name__}: {original}"


app = WeightedEnsemble.bind(
    {"mean": (0.25, Mean.bind()), "last": (0.25, Last.bind()), "growth": (0.5, Growth.bind())},
)


def main() -> None:
    """Forecast a series that suits all members, and one that does not."""
    serve.run(app)
    for series in ([2, 8, 32], [0, 4, 8]):
        answer = httpx.post(URL, json=series).json()
        print(
            f"{series} -> {answer['forecast']} from {', '.join(answer['used'])}; failed: {answer['failed']}"
        )
    serve.shutdown()


if __name__ == "__main__":
    main()
