"""JSON echo on BentoML with its defaults."""

from __future__ import annotations

import bentoml


@bentoml.service
class Echo:
    """Gives back what it gets."""

    @bentoml.api
    async def echo(self, x: int) -> dict[str, int]:
        """Answer with the value of the request."""
        return {"x": x}
