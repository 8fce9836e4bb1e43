"""A resilient model: loading is tried again, and a simpler model answers when all tries fail.

The store below stands for a model registry behind a bad network: it refuses the first calls.

Run ``python -m examples.resilient`` and you will see::

    refuses twice: {'model': 'trained', 'tries': 3, 'price': 195.0}
    cannot price a flat without size: {'model': 'fallback', 'tries': 3, 'price': 150.0}
    refuses always: {'model': 'fallback', 'tries': 4, 'price': 150.0}

To keep it running: ``trygon run examples.resilient:build refusals=99``, then
``curl "http://127.0.0.1:8000/?rooms=3&size=70"``.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.requests import Request

from trygon import serve
from trygon.serve import Application
from trygon.serve.handle import DeploymentHandle

URL = "http://127.0.0.1:8000"

logger = logging.getLogger("ray.serve")


@dataclass
class LinearModel:
    """Price a flat by its rooms and its size in square metres."""

    by_room: float
    by_size: float

    def price(self, rooms: float, size: float) -> float:
        """Return the price in thousands; a ValueError for a flat that cannot be."""
        if size <= 0:
            raise ValueError(f"size must be above zero, got {size!r}")
        return self.by_room * rooms + self.by_size * size


@dataclass
class UnreliableStore:
    """Hand out the trained model, after refusing `refusals` times."""

    refusals: int

    def load(self) -> LinearModel:
        """Return the model, or raise ConnectionError."""
        if self.refusals > 0:
            self.refusals -= 1
            raise ConnectionError("the model store does not answer")
        return LinearModel(by_room=30.0, by_size=1.5)


@serve.deployment
class Fallback:
    """The simpler model, which needs nothing from outside: every room costs the same."""

    def price(self, rooms: float) -> float:
        """Return the price in thousands."""
        return 50.0 * rooms


@serve.deployment
class ResilientModel:
    """Answer with the trained model if it can be had, with the fallback if not.

    Args:
        store: Where the trained model is.
        fallback: The deployment that answers when the model is missing or fails.
        max_tries: How often loading is tried.
        first_wait_s: Pause after the first failure; it doubles each time.
    """

    async def __init__(  # type: ignore[misc]  # a constructor may wait: nothing else is held up
        self,
        store: UnreliableStore,
        fallback: DeploymentHandle,
        max_tries: int = 4,
        first_wait_s: float = 0.05,
    ) -> None:
        self.fallback = fallback
        self.model: LinearModel | None = None
        for self.tries in range(1, max_tries + 1):
            try:
                self.model = store.load()
                break
            except ConnectionError as error:
                logger.warning("try %d of %d to load the model failed: %s", self.tries, max_tries, error)
                await asyncio.sleep(first_wait_s * 2 ** (self.tries - 1))

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answer HTTP: ``?rooms=3&size=70``."""
        query = request.query_params
        return await self.price(float(query.get("rooms", "1")), float(query.get("size", "0")))

    async def price(self, rooms: float, size: float) -> dict[str, Any]:
        """Price a flat, and say which model did it."""
        if self.model is not None:
            try:
                return {"model": "trained", "tries": self.tries, "price": self.model.price(rooms, size)}
            except ValueError as error:
                logger.warning("the trained model failed: %s", error)
        return {"model": "fallback", "tries": self.tries, "price": await self.fallback.price.remote(rooms)}


def build(args: dict[str, str]) -> Application:
    """Build the application; the store refuses ``refusals`` times before it hands out the model."""
    return ResilientModel.bind(UnreliableStore(int(args.get("refusals", "2"))), Fallback.bind())


app = build({})


def main() -> None:
    """Show a model that loads late, one that fails on its input, and one that never loads."""
    serve.run(app)
    print("refuses twice:", httpx.get(URL, params={"rooms": 3, "size": 70}).json())
    print("cannot price a flat without size:", httpx.get(URL, params={"rooms": 3}).json())
    serve.run(build({"refusals": "99"}))
    print("refuses always:", httpx.get(URL, params={"rooms": 3, "size": 70}).json())
    serve.shutdown()


if __name__ == "__main__":
    main()
