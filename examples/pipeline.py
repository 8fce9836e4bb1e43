"""A pipeline: preprocess, inference, postprocess, each a deployment of its own.

The answer of one stage goes to the next without passing through the pipeline itself:
a response that is not there yet may be an argument.

Run ``python -m examples.pipeline`` and you will see::

    Good food, lovely people! -> {'label': 'positive', 'confidence': 0.953}
    The film was bad. -> {'label': 'negative', 'confidence': 0.818}
    It has pages. -> {'label': 'neutral', 'confidence': 0.5}

To keep it running: ``trygon run examples.pipeline:app``, then
``curl -d "what a lovely day" http://127.0.0.1:8000/``.
"""

from __future__ import annotations

import math
import re

import httpx
from starlette.requests import Request

from trygon import serve
from trygon.serve.handle import DeploymentHandle

URL = "http://127.0.0.1:8000"

WEIGHTS = {"good": 1.5, "great": 2.0, "lovely": 1.5, "bad": -1.5, "awful": -2.0, "boring": -1.0}


@serve.deployment
class Preprocess:
    """Turn text into words."""

    def __call__(self, text: str) -> list[str]:
        """Return the words in lower case."""
        return re.findall(r"[a-z']+", text.lower())


@serve.deployment
class Inference:
    """A linear model: one weight for each word it knows.

    Args:
        weights: Positive for praise, negative for blame.
    """

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights

    def __call__(self, words: list[str]) -> float:
        """Return the score of a text, as log odds."""
        return sum(self.weights.get(word, 0.0) for word in words)


@serve.deployment
class Postprocess:
    """Turn log odds into a label that people read."""

    def __call__(self, log_odds: float) -> dict[str, str | float]:
        """Return the label and how sure the model is."""
        label = "positive" if log_odds > 0 else "negative" if log_odds < 0 else "neutral"
        return {"label": label, "confidence": round(1 / (1 + math.exp(-abs(log_odds))), 3)}


@serve.deployment
class Pipeline:
    """Chain the three stages."""

    def __init__(
        self, preprocess: DeploymentHandle, inference: DeploymentHandle, postprocess: DeploymentHandle
    ):
        self.preprocess = preprocess
        self.inference = inference
        self.postprocess = postprocess

    async def __call__(self, request: Request) -> dict[str, str | float]:
        """Answer HTTP: the request's body is the text."""
        return await self.classify((await request.body()).decode())

    async def classify(self, text: str) -> dict[str, str | float]:
        """Label a text; only the last stage is awaited here."""
        words = self.preprocess.remote(text)
        log_odds = self.inference.remote(words)
        answer: dict[str, str | float] = await self.postprocess.remote(log_odds)
        return answer


app = Pipeline.bind(Preprocess.bind(), Inference.bind(WEIGHTS), Postprocess.bind())


def main() -> None:
    """Label three texts."""
    serve.run(app)
    for text in ("Good food, lovely people!", "The film was bad.", "It has pages."):
        print(text, "->", httpx.post(URL, content=text).json())
    serve.shutdown()


if __name__ == "__main__":
    main()
