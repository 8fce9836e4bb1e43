"""Metrics of instances of their own: replicas that die, and the names that Ray Serve's dashboards ask for."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.integration.admin.conftest import Admin
from tests.integration.admin.scraping import Shop, Stock, value, wait_for
from tests.waiting import wait_until
from trygon import serve


def test_the_totals_of_a_deployment_outlive_a_killed_replica(own_admin: Admin) -> None:
    admin = own_admin
    serve.run(Shop.bind(Stock.bind()), name="shop", route_prefix="/shop")
    url = serve.http_address()
    httpx.get(f"{url}/shop")
    before = wait_for(admin, lambda s: value(s, "trygon_deployment_requests_total") > 0, "a request")
    count = value(before, "trygon_deployment_requests_total", deployment="Shop")
    starts = value(before, "trygon_deployment_starts_total", deployment="Shop")

    assert 502 == httpx.post(f"{url}/shop/die").status_code

    after = wait_for(
        admin,
        lambda s: value(s, "trygon_deployment_starts_total", deployment="Shop") == starts + 1,
        "another replica",
    )
    assert count <= value(after, "trygon_deployment_requests_total", deployment="Shop")
    # One of each deployment: the dead one's is folded into the totals, the others' come within a second.
    folder = Path(admin.record.runtime_dir)
    wait_until(lambda: 2 == len(list(folder.glob("replica-*.page"))), "a page of each living replica")


def test_the_old_prefix_gives_rays_names(own_admin_with_ray_names: Admin) -> None:
    admin = own_admin_with_ray_names
    serve.run(Stock.bind(), name="stock", route_prefix="/stock")
    httpx.get(f"{serve.http_address()}/stock")
    serve.metrics.Counter("by_hand").inc()

    found = wait_for(
        admin,
        lambda s: bool(value(s, "ray_serve_num_http_requests_total")) and "ray_by_hand_total" in s,
        "a request",
    )

    assert 6 == value(found, "ray_serve_application_status", application="stock")
    assert not [name for name in found if name.startswith("trygon_")]
