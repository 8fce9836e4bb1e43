"""The examples of routers, as their texts say."""

from __future__ import annotations

import httpx

from examples import routing, sessions
from tests.examples.conftest import RunApp


def test_a_shops_requests_go_to_one_replica(run_app: RunApp, client: httpx.Client) -> None:
    run_app(routing.app)

    for visit in range(1, 5):
        for shop in ("17", "18", "19"):
            assert {"shop": shop, "visits": visit} == client.get("/", params={"shop": shop}).json()


def test_a_basket_stays_with_its_session(run_app: RunApp, client: httpx.Client) -> None:
    run_app(sessions.app)

    for items in (["bread"], ["bread", "milk"], ["bread", "milk", "tea"]):
        for name in ("ann", "bob", "eve"):
            found = client.get("/", params={"item": items[-1]}, headers={"x-session-id": name})
            assert items == found.json()
