"""Autoscaling while its parts die: the controller, a policy that hangs, a program with load."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.family import only, pids
from tests.integration.serve.scaling_apps import QUICK, Busy, Told
from tests.integration.serve.scaling_load import Load, deployment_of, http_caller, num_running, wait_running
from tests.waiting import wait_until
from trygon import serve


def test_a_killed_controller_changes_nothing_and_the_next_one_goes_on_deciding(url: str) -> None:
    options = {**QUICK, "downscale_delay_s": 2.0}
    serve.run(Busy.options(autoscaling_config=options).bind(), name="kill", route_prefix="/kill")
    load = Load()

    with http_caller(url, "/kill") as call, load.on(8, call):
        wait_running(4, "kill")
        replicas = pids("replica")
        victim = only("controller")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: pids("controller") - {victim}, "another controller")
        wait_running(4, "kill")
        assert replicas == pids("replica")
        assert "RUNNING" == serve.status().applications["kill"].status

    wait_running(1, "kill", timeout_s=15)
    assert [] == load.errors


def test_a_policy_goes_on_after_its_controller_was_killed(url: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text("3")
    scaling = {
        **QUICK,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "policy": {"policy_function": Told, "policy_kwargs": {"path": str(said)}},
    }
    serve.run(Busy.options(autoscaling_config=scaling).bind())
    wait_running(3, "default")
    first, victim = only("helper"), only("controller")

    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: pids("controller") - {victim}, "another controller")
    said.write_text("2")

    wait_running(2, "default", timeout_s=20)
    wait_until(lambda: len(pids("helper") - {first}) == 1 == len(pids("helper")), "one helper, a new one")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("fault", ["hang", "stop"])
def test_a_policy_that_never_answers_costs_its_process_and_nothing_else(
    url: str, tmp_path: Path, fault: str
) -> None:
    said = tmp_path / "said"
    said.write_text("3")
    scaling = {
        **QUICK,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "policy": {"policy_function": Told, "policy_kwargs": {"path": str(said)}},
    }
    serve.run(Busy.options(autoscaling_config=scaling).bind())
    wait_running(3, "default")
    load = Load()

    with http_caller(url, "/") as call, load.on(2, call):
        first = only("helper")
        if fault == "hang":
            said.write_text("hang")
        else:
            os.kill(first, signal.SIGSTOP)
        wait_until(
            lambda: deployment_of("default", "Busy").message, "the failure in the status", timeout_s=20
        )
        assert 3 == num_running("default")
        said.write_text("2")
        wait_running(2, "default", timeout_s=20)
        assert {first} != pids("helper")

    assert [] == load.errors
