"""Four replicas with room for 25 models of 1 MiB each, which count what they do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from trygon import serve

REPLICAS = 4
PLACES = 25
MODEL_BYTES = 1 << 20
BUDGET_BYTES = PLACES * MODEL_BYTES
_LOAD_S = 0.005
#: Long enough for a thousand requests to come: those that come after it find a hot model, which spreads.
_COLD_LOAD_S = 1.0


@serve.deployment(
    num_replicas=REPLICAS, max_ongoing_requests=2000, logging_config={"enable_access_log": False}
)
class Many:
    """Answers with the model that the request names."""

    def __init__(self) -> None:
        self.loads: dict[str, int] = {}
        #: Most bytes that models took which no request used, whenever a request looked.
        self.most_unused = 0

    @serve.multiplexed(max_num_models_per_replica=-1, max_bytes=BUDGET_BYTES, sizeof=len)
    async def get_model(self, model_id: str) -> bytes:
        """Take as long as reading a small file does."""
        self.loads[model_id] = self.loads.get(model_id, 0) + 1
        await asyncio.sleep(_LOAD_S if not model_id.startswith("cold") else _COLD_LOAD_S)
        return b"x" * MODEL_BYTES

    async def __call__(self, request: object = None) -> str:
        model_id = serve.get_multiplexed_model_id()
        await self.get_model(model_id)
        numbers = self.get_model.statistics()
        self.most_unused = max(self.most_unused, numbers.held_bytes - numbers.leased_bytes)
        return model_id

    async def seen(self) -> dict[str, Any]:
        """Return the counts so far."""
        numbers = self.get_model.statistics()
        resident = Path("/proc/self/statm").read_text().split()[1]
        return {
            "requests": numbers.requests,
            "hits": numbers.hits,
            "loads": numbers.loads,
            "models": numbers.num_models,
            "most_unused": self.most_unused,
            "pages": int(resident),
            "cold": {name: count for name, count in self.loads.items() if name.startswith("cold")},
        }


app = Many.bind()
