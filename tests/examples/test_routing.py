"""The examples of routers, as their texts say."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from examples import routing, sessions
from trygon import serve

pytestmark = pytest.mark.timeout(40)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    serve.start(http_options={"port": 0})
    with httpx.Client(base_url=serve.http_address(), timeout=20) as client:
        yield client
    serve.shutdown()


def test_a_shops_requests_go_to_one_replica(client: httpx.Client) -> None:
    serve.run(routing.app)

    for visit in range(1, 5):
        for shop in ("17", "18", "19"):
            assert {"shop": shop, "visits": visit} == client.get("/", params={"shop": shop}).json()


def test_a_basket_stays_with_its_session(client: httpx.Client) -> None:
    serve.run(sessions.app)

    for items in (["bread"], ["bread", "milk"], ["bread", "milk", "tea"]):
        for name in ("ann", "bob", "eve"):
            found = client.get("/", params={"item": items[-1]}, headers={"x-session-id": name})
            assert items == found.json()
