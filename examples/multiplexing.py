"""Many small models in a few replicas: each is loaded when it is first asked for, and kept while there is room.

    trygon run examples.multiplexing:app
    curl -H "serve_multiplexed_model_id: store-17" localhost:8000/

You will see {"model":"store-17","forecast":119}.
"""

from __future__ import annotations

from starlette.requests import Request

from trygon import serve


class Model:
    """Stands for a forecast that was trained for one store."""

    def __init__(self, store: str) -> None:
        self.store = store
        self.level = 7 * int(store.rpartition("-")[2])

    def predict(self) -> int:
        """Return what the store will sell."""
        return self.level


@serve.deployment(num_replicas=2)
class Forecaster:
    """Holds up to ten stores in each replica."""

    @serve.multiplexed(max_num_models_per_replica=10)
    async def get_model(self, model_id: str) -> Model:
        """Load the model of one store."""
        return Model(model_id)

    async def __call__(self, request: Request) -> dict[str, object]:
        """Answer with the model that the request names."""
        model = await self.get_model(serve.get_multiplexed_model_id())
        return {"model": model.store, "forecast": model.predict()}


app = Forecaster.bind()
