"""Wine classes over HTTP, one row a request: with `serve.batch`, and one by one. Runs on Trygon and on Ray Serve."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from wine_model import MAX_BATCH_SIZE, WAIT_S, predict, train

from trygon import serve

_LOGGING = {"enable_access_log": False}


class Wine:
    """Takes one row a request; how the model is asked is its children's."""

    predict: Any

    def __init__(self) -> None:
        self.model = train()

    async def __call__(self, request: Request) -> Any:
        return await self.predict((await request.json())["features"])


@serve.deployment(max_ongoing_requests=1000, logging_config=_LOGGING)
class Batched(Wine):
    """Asks the model about the rows of many requests at once."""

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=WAIT_S)
    async def predict(self, rows: list[list[float]]) -> list[int]:
        """Return the class of each row."""
        return predict(self.model, rows)


@serve.deployment(max_ongoing_requests=1000, logging_config=_LOGGING)
class Tuned(Wine):
    """The same, with the wait that tunes itself."""

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s="auto")
    async def predict(self, rows: list[list[float]]) -> list[int]:
        """Return the class of each row."""
        return predict(self.model, rows)


@serve.deployment(max_ongoing_requests=1000, logging_config=_LOGGING)
class Single(Wine):
    """Asks the model about one row at a time."""

    async def predict(self, row: list[float]) -> int:
        """Return the class of the row."""
        return predict(self.model, [row])[0]


batched = Batched.bind()
single = Single.bind()
tuned = Tuned.bind()
