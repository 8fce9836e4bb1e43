"""The adaptive policy decides in the controller, without any user code."""

from __future__ import annotations

import pytest

from tests.integration.serve.conftest import RunApp
from tests.integration.serve.scaling_apps import Busy
from tests.integration.serve.scaling_load import Load, http_caller, num_running
from tests.waiting import wait_until
from trygon.serve.autoscaling_policy import AdaptivePolicy

pytestmark = pytest.mark.timeout(60)


def test_replicas_come_with_the_load_and_go_after_the_hold(url: str, run_app: RunApp) -> None:
    policy = AdaptivePolicy(wait_s=0.02, hold_s=1.0, half_life_s=0.5)
    options = {
        "min_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": 2,
        "metrics_interval_s": 0.1,
        "policy": policy,
    }
    run_app(
        Busy.options(autoscaling_config=options, max_ongoing_requests=2).bind(),
        name="adaptive",
        route_prefix="/adaptive",
    )
    load = Load()

    with http_caller(url, "/adaptive") as call:
        with load.on(8, call):
            wait_until(lambda: num_running("adaptive") == 4, "4 replicas", timeout_s=15)
        wait_until(lambda: num_running("adaptive") == 1, "1 replica", timeout_s=25)

    assert [] == load.errors
