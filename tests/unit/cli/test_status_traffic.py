"""The traffic of the last minute in `trygon status`."""

from __future__ import annotations

import json

import pytest

from trygon.cli.status import _as_json, _as_text
from trygon.spec.instance import InstanceRecord
from trygon.spec.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    InstanceStatus,
    Traffic,
)

_BUSY = Traffic(requests_per_s=12.345, errors_per_s=0.5, p50_ms=1.25, p95_ms=3.0, p99_ms=7.5)


@pytest.fixture
def record() -> InstanceRecord:
    return InstanceRecord(
        name="i",
        pid=1,
        supervisor_pid=2,
        host="127.0.0.1",
        port=8000,
        controller_address="",
        runtime_dir="",
        state_dir="",
        log_dir="",
    )


def status(traffic: Traffic) -> InstanceStatus:
    deployment = DeploymentStatusOverview(status=DeploymentStatus.HEALTHY, traffic=traffic)
    application = ApplicationStatusOverview(
        status=ApplicationStatus.RUNNING, deployments={"D": deployment}, route_prefix="/", traffic=traffic
    )
    return InstanceStatus(applications={"a": application})


def test_rates_and_latencies_stand_behind_application_and_deployment(record: InstanceRecord) -> None:
    text = _as_text([(record, status(_BUSY))])

    shown = ", 12.3 requests/s, 0.5 errors/s, p50 1.25 ms, p95 3 ms, p99 7.5 ms"
    assert 2 == text.count(shown)


def test_nothing_is_said_of_traffic_where_there_was_none(record: InstanceRecord) -> None:
    assert "requests/s" not in _as_text([(record, status(Traffic()))])


def test_json_has_the_numbers(record: InstanceRecord) -> None:
    found = json.loads(_as_json([(record, status(_BUSY))], indent=0))

    traffic = found["instances"][0]["applications"]["a"]["deployments"]["D"]["traffic"]
    assert (12.345, 0.5, 7.5) == (traffic["requests_per_s"], traffic["errors_per_s"], traffic["p99_ms"])
