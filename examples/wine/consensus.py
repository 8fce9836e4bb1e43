"""Three models vote on a wine: all are asked at once, the answer names the methods that agreed.

First train them: ``python -m examples.wine.train``.
Then run ``python -m examples.wine.consensus`` and you will see::

    a strong wine: {'answer': '1', 'agreed': [...], 'disagreed': [...]}

To keep it running: ``trygon run examples.wine.consensus:build models=wine-models``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse

from examples.wine.data import features
from examples.wine.routes import GOOD_WINE, WineModel, saved_models
from trygon import serve
from trygon.serve import Application
from trygon.serve.handle import DeploymentHandle

URL = "http://127.0.0.1:8000"


@serve.deployment(max_ongoing_requests=20)
class Consensus:
    """Let models vote.

    Args:
        members: The handle of each method's model; an odd number of them, so that there is a majority.
    """

    def __init__(self, members: Mapping[str, DeploymentHandle]) -> None:
        if len(members) % 2 == 0:
            raise ValueError(f"an odd number of members is needed for a majority, got {list(members)}")
        self.members = members

    async def __call__(self, request: Request) -> dict[str, Any] | JSONResponse:
        """Answer HTTP: the body is a JSON object of measurements."""
        try:
            wine = await request.json()
            features(wine)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return await self.vote(wine)

    async def vote(self, wine: dict[str, Any]) -> dict[str, Any]:
        """Ask all members at once and answer with the majority."""
        answers = await asyncio.gather(*(member.predict.remote(wine) for member in self.members.values()))
        votes = dict(zip(self.members, answers, strict=True))
        answer = Counter(votes.values()).most_common(1)[0][0]
        return {
            "answer": answer,
            "agreed": [name for name, vote in votes.items() if vote == answer],
            "disagreed": [name for name, vote in votes.items() if vote != answer],
        }


def build(args: dict[str, str]) -> Application:
    """Build the application: ``models`` is the folder that the training wrote."""
    models = saved_models(Path(args.get("models", "wine-models")))
    return Consensus.bind(
        {name: WineModel.options(name=name).bind(str(path)) for name, path in models.items()},
    )


def main() -> None:
    """Ask the three models about one wine."""
    serve.run(build({}))
    print("a strong wine:", httpx.post(URL, json=GOOD_WINE).json())
    serve.shutdown()


if __name__ == "__main__":
    main()
