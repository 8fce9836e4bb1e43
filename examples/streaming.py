"""Streaming: words leave as soon as there is one, over HTTP and through a handle.

Run ``python -m examples.streaming`` and you will see the words appear one by one::

    over HTTP: Once upon a time there was a model.
    through the handle: ['Once ', 'upon ', 'a ', 'time']

To keep it running: ``trygon run examples.streaming:app``, then
``curl -N "http://127.0.0.1:8000/?words=8"``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
from starlette.requests import Request
from starlette.responses import StreamingResponse

from trygon import serve

URL = "http://127.0.0.1:8000"

STORY = ["Once", "upon", "a", "time", "there", "was", "a", "model."]


@serve.deployment
class Storyteller:
    """Tell a story as a language model would: a word at a time.

    Args:
        pause_s: How long the next word takes.
    """

    def __init__(self, pause_s: float = 0.1) -> None:
        self.pause_s = pause_s

    def __call__(self, request: Request) -> StreamingResponse:
        """Answer HTTP: ``?words=NUMBER`` of words, all of the story if it is not given."""
        words = int(request.query_params.get("words", str(len(STORY))))
        return StreamingResponse(self.tell(words), media_type="text/plain")

    async def tell(self, words: int) -> AsyncIterator[str]:
        """Yield the story's words, from the start again after its end."""
        for position in range(words):
            await asyncio.sleep(self.pause_s)
            yield STORY[position % len(STORY)] + (" " if position < words - 1 else "")


app = Storyteller.bind()


def main() -> None:
    """Print the words as they come."""
    handle = serve.run(app)
    print("over HTTP: ", end="")
    with httpx.stream("GET", URL) as response:
        for text in response.iter_text():
            print(text, end="", flush=True)
    print()
    words = handle.options(stream=True).tell.remote(4)
    print("through the handle:", list(words))
    serve.shutdown()


if __name__ == "__main__":
    main()
