"""What `serve.yaml` beside it serves: a greeting whose words and tone come from the file.

    trygon run examples/config/serve.yaml
    curl 'localhost:8000/hello?name=Ada'        -> Hello, Ada!
    curl 'localhost:8000/moin?name=Ada'         -> Moin, ADA!

Change `loud` in the file and run `trygon deploy` (or run with `--reload`): the replicas stay, and only take
the new value.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from trygon import serve


@serve.deployment
class Greeter:
    """Greets whoever is named."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._loud = False

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Take over what `user_config` says, at the start and whenever it changes."""
        self._loud = bool(config.get("loud", False))

    async def __call__(self, request: Request) -> str:
        """Answer with a greeting."""
        name = request.query_params.get("name", "world")
        return f"{self._word}, {name.upper() if self._loud else name}!"


def build(args: dict[str, str]) -> serve.Application:
    """Return the application with the word from `args`."""
    return Greeter.bind(args["word"])
