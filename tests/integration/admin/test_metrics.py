"""`/metrics` of a running instance: what all processes counted, in names that dashboards know."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.admin.conftest import Admin
from tests.integration.admin.scraping import Shop, Stock, scrape, value, wait_for
from tests.waiting import wait_until
from trygon import serve

_MONITORING = Path(__file__).resolve().parents[3] / "docs" / "monitoring"


@pytest.fixture(scope="module")
def url(admin: Admin) -> str:
    serve.run(Shop.bind(Stock.bind()), name="shop", route_prefix="/shop")
    return serve.http_address()


def test_a_request_is_counted_in_the_ingress_the_caller_and_each_replica(admin: Admin, url: str) -> None:
    for _ in range(3):
        assert 200 == httpx.get(f"{url}/shop").status_code
    assert 500 == httpx.get(f"{url}/shop/broken").status_code
    assert 404 == httpx.get(f"{url}/nowhere/at/all").status_code

    found = wait_for(
        admin,
        lambda s: (
            # Each process publishes at a time of its own.
            value(s, "trygon_deployment_requests_total", deployment="Stock") == 3
            and value(s, "trygon_deployment_requests_total", deployment="Shop") == 4
            and value(s, "trygon_num_http_requests_total") >= 5
        ),
        "the numbers of the requests, of both replicas and the ingress",
    )

    http = {"route": "/shop", "application": "shop", "method": "GET"}
    assert 3 == value(found, "trygon_num_http_requests_total", **http, status_code="200")
    assert 1 == value(found, "trygon_num_http_error_requests_total", **http, error_code="500")
    assert 1 == value(found, "trygon_num_deployment_http_error_requests_total", deployment="Shop")
    assert 4 == value(found, "trygon_http_request_latency_ms_count", application="shop")
    unknown = [
        labels for labels in found["trygon_num_http_requests_total"] if ("status_code", "404") in labels
    ]
    assert [frozenset({("method", "GET"), ("status_code", "404")})] == unknown
    assert 4 == value(found, "trygon_deployment_request_counter_total", deployment="Shop", route="/shop")
    assert 1 == value(found, "trygon_deployment_error_counter_total", deployment="Shop")
    assert 3 == value(found, "trygon_handle_request_counter_total", deployment="Stock")
    assert 4 == value(found, "trygon_num_router_requests_total", deployment="Shop", handle="ingress-0")
    assert 3 == value(found, "trygon_sold_total", kind="pear", deployment="Shop", application="shop")
    for stage in ("accept", "queue", "transfer", "compute"):
        assert 4 == value(found, "trygon_stage_latency_ms_count", stage=stage, deployment="Shop")
    assert 3 == value(found, "trygon_stage_latency_ms_count", stage="serialise", deployment="Shop")
    assert value(found, "trygon_transfer_bytes_total", deployment="Stock", direction="request") > 0
    # Nothing is in work any more, and that is told too.
    wait_for(admin, lambda s: not value(s, "trygon_replica_processing_queries"), "an idle instance")


def test_calls_and_metrics_of_a_program_are_there(admin: Admin, url: str) -> None:
    gauge = serve.metrics.Gauge("mood", "Of the program.", tag_keys=("day",))
    before = value(scrape(admin), "trygon_deployment_requests_total", deployment="Stock")
    handle = serve.get_deployment_handle("Stock", "shop")

    for _ in range(4):
        assert 2 == handle.take.remote(2).result()
    gauge.set(3.5, tags={"day": "monday"})

    found = wait_for(
        admin,
        lambda s: (
            value(s, "trygon_deployment_requests_total", deployment="Stock") == before + 4
            and bool(value(s, "trygon_mood"))
        ),
        "the numbers of the program",
    )
    caller = f"program-{os.getpid()}"
    assert 4 == value(found, "trygon_handle_request_counter_total", handle=caller, deployment="Stock")
    assert {frozenset({("day", "monday")}): 3.5} == found["trygon_mood"]


def test_the_status_has_the_traffic_of_the_last_minute(admin: Admin, url: str) -> None:
    for _ in range(20):
        httpx.get(f"{url}/shop")

    def traffic() -> bool:
        application = serve.status().applications["shop"]
        found = (application.traffic, application.deployments["Stock"].traffic)
        return all(one is not None and one.requests_per_s > 0.3 for one in found)

    wait_until(traffic, "the traffic of twenty requests")
    application = serve.status().applications["shop"]
    assert application.traffic is not None
    assert application.traffic.p50_ms is not None
    assert application.traffic.p99_ms is not None
    assert 0 < application.traffic.p50_ms <= application.traffic.p99_ms


def test_every_metric_of_the_dashboard_and_the_alerts_is_scraped(admin: Admin, url: str) -> None:
    httpx.get(f"{url}/shop/broken")
    dashboard = json.loads((_MONITORING / "grafana-dashboard.json").read_text())
    alerts = yaml.safe_load((_MONITORING / "prometheus-alerts.yaml").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"]]
    queries += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    named = {name for query in queries for name in re.findall(r"\btrygon_\w+", query)}
    # There only once something was dropped.
    named.discard("trygon_metrics_dropped_series_total")

    found = wait_for(
        admin, lambda s: bool(value(s, "trygon_num_http_error_requests_total")), "a counted error"
    )

    assert len(named) > 15
    assert set() == named - set(found)
