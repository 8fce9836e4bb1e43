"""The example of many models, as its text says."""

from __future__ import annotations

import httpx

from examples.multiplexing import app
from tests.examples.conftest import RunApp


def test_the_named_model_answers(run_app: RunApp, client: httpx.Client) -> None:
    run_app(app)

    answer = client.get("/", headers={"serve_multiplexed_model_id": "store-17"})

    assert {"model": "store-17", "forecast": 119} == answer.json()
