"""Batching: single requests are collected, and a model is asked about many at once.

The method decorated with `serve.batch` takes lists; its callers pass one item and get one answer.
The streaming one yields a list with a word for each caller, as a language model does that
generates for many prompts at a time.

Run ``python -m examples.batching`` and you will see::

    32 requests in 4 batches: [0, 1, 4, 9, 16, 25] ...
    one bad request in a batch: [1, 2, 'ValueError: negative', 4]
    streams: ['a1 a2', 'b1 b2 b3 b4', 'c1']

To keep it running: ``trygon run examples.batching:app``, then
``curl "http://127.0.0.1:8000/?number=7"``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from starlette.requests import Request

from trygon import serve

URL = "http://127.0.0.1:8000"


@serve.deployment(max_ongoing_requests=100)
class Model:
    """A model that takes as long for eight numbers as for one."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.1)
    async def square(self, numbers: list[int]) -> list[int]:
        """Return the square of each number."""
        self.batches.append(len(numbers))
        await asyncio.sleep(0.01)
        return [number * number for number in numbers]

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.1, bisect_on_error=True)
    async def root(self, numbers: list[int]) -> list[int]:
        """Return the square root of each number; one that is negative fails alone."""
        if min(numbers) < 0:
            raise ValueError("negative")
        return [round(number**0.5) for number in numbers]

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.1)
    async def spell(self, letters: list[str], lengths: list[int]) -> AsyncIterator[list[Any]]:
        """Yield a word for each caller until it has its number of words."""
        for step in range(1, max(lengths) + 1):
            yield [
                f"{letter}{step}" if step <= length else StopIteration
                for letter, length in zip(letters, lengths, strict=True)
            ]

    async def __call__(self, request: Request) -> int:
        """Answer HTTP: ``?number=NUMBER``."""
        squared: int = await self.square(int(request.query_params["number"]))
        return squared

    def sizes(self) -> list[int]:
        """Return how many numbers each batch had."""
        return self.batches


app = Model.bind()


def main() -> None:
    """Send requests at the same time, and show what came of them."""
    handle = serve.run(app)
    with ThreadPoolExecutor(32) as threads, httpx.Client() as client:
        asked = threads.map(lambda number: client.get(URL, params={"number": number}).json(), range(32))
        answers = list(asked)
    sizes = handle.sizes.remote().result()
    print(f"{len(answers)} requests in {len(sizes)} batches: {answers[:6]} ...")
    roots = [handle.root.remote(number) for number in (1, 4, -9, 16)]
    print("one bad request in a batch:", [outcome(root) for root in roots])
    spell = handle.options(stream=True).spell
    streams = [spell.remote(letter, length) for letter, length in (("a", 2), ("b", 4), ("c", 1))]
    print("streams:", [" ".join(stream) for stream in streams])
    serve.shutdown()


def outcome(response: Any) -> Any:
    """Return the answer, or name the error."""
    try:
        return response.result()
    except ValueError as error:
        return f"ValueError: {getattr(error, 'cause', None) or error}"


if __name__ == "__main__":
    main()
