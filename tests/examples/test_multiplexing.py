"""The example of many models, as its text says."""

from __future__ import annotations

import httpx
import pytest

from examples.multiplexing import app
from trygon import serve

pytestmark = pytest.mark.timeout(40)


def test_the_named_model_answers() -> None:
    serve.start(http_options={"port": 0})
    try:
        serve.run(app)
        answer = httpx.get(
            serve.http_address(), headers={"serve_multiplexed_model_id": "store-17"}, timeout=20
        )
    finally:
        serve.shutdown()

    assert {"model": "store-17", "forecast": 119} == answer.json()
