"""Routers in local testing mode: on threads of this process."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.serve.routing_apps import ByNumber, Place
from tests.waiting import wait_until
from trygon import serve


@pytest.mark.timeout(40)
def test_local_testing_mode_routes_too() -> None:
    place = Place.options(request_router_config={"request_router_class": ByNumber}).bind()
    handle = serve.run(place, name="local", route_prefix=None, _local_testing_mode=True)
    try:
        wait_until(lambda: is_routed(handle), "calls that go where the router says")
    finally:
        serve.shutdown()


def is_routed(handle: Any) -> bool:
    answers = [handle.remote(number).result(timeout_s=10) for number in range(6)]
    return 3 == len(set(answers)) and answers[:3] * 2 == answers
