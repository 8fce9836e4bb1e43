"""A canary: a given share of the requests goes to version one, the rest to version two.

Run ``python -m examples.canary`` and you will see about nine answers in ten from version one::

    1000 requests: ... from version one, ... from version two

To keep it running with another share: ``trygon run examples.canary:build share=0.5``.
"""

from __future__ import annotations

import random
from collections import Counter

import httpx
from starlette.requests import Request

from trygon import serve
from trygon.serve import Application
from trygon.serve.handle import DeploymentHandle

URL = "http://127.0.0.1:8000"


@serve.deployment
class VersionOne:
    """The version that is trusted."""

    def predict(self, text: str) -> dict[str, str | int]:
        """Count the words."""
        return {"version": "one", "words": len(text.split())}


@serve.deployment
class VersionTwo:
    """The version that is being tried: it counts each word once."""

    def predict(self, text: str) -> dict[str, str | int]:
        """Count the different words."""
        return {"version": "two", "words": len(set(text.split()))}


@serve.deployment(max_ongoing_requests=100)
class Canary:
    """Send each request to one of two versions.

    Args:
        one: The version that gets `share` of the requests.
        two: The version that gets the others.
        share: From 0 (none) to 1 (all).
        seed: Of the dice; None throws other dice in each replica.
    """

    def __init__(
        self, one: DeploymentHandle, two: DeploymentHandle, share: float, seed: int | None = None
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share must be between 0 and 1, got {share!r}")
        self.one = one
        self.two = two
        self.share = share
        self.dice = random.Random(seed)

    async def __call__(self, request: Request) -> dict[str, str | int]:
        """Answer HTTP: the request's body is the text."""
        return await self.predict((await request.body()).decode())

    async def predict(self, text: str) -> dict[str, str | int]:
        """Ask the version that the dice choose."""
        chosen = self.one if self.dice.random() < self.share else self.two
        answer: dict[str, str | int] = await chosen.predict.remote(text)
        return answer


def build(args: dict[str, str]) -> Application:
    """Build the application: ``share=0.9`` is version one's share, ``seed`` makes it repeatable."""
    seed = args.get("seed")
    return Canary.bind(
        VersionOne.bind(),
        VersionTwo.bind(),
        share=float(args.get("share", "0.9")),
        seed=None if seed is None else int(seed),
    )


app = build({})


def main() -> None:
    """Send a thousand requests and count the versions that answered."""
    serve.run(app)
    with httpx.Client() as client:
        answers = [client.post(URL, content="to be or not to be").json() for _ in range(1000)]
    counts = Counter(answer["version"] for answer in answers)
    print(f"{len(answers)} requests: {counts['one']} from version one, {counts['two']} from version two")
    serve.shutdown()


if __name__ == "__main__":
    main()
