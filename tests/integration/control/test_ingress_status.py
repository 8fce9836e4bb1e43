"""With several ingress processes, an application is RUNNING while every one of them routes to it."""

from __future__ import annotations

import os
import signal

from tests.integration.control.conftest import Start, pids, run
from tests.waiting import wait_until
from trygon.spec.status import ApplicationStatus, ProxyStatus


def test_one_missing_ingress_of_two_is_seen_in_the_status_until_it_is_back(start: Start) -> None:
    instance = start(num_ingress=2)
    run(instance)
    victim = min(pids(instance, "ingress"))
    assert ApplicationStatus.RUNNING == instance.status().applications["default"].status

    # Who would start its successor is held up, so that the moment lasts.
    os.kill(instance.record.supervisor_pid, signal.SIGSTOP)
    try:
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: instance.status().applications["default"].status is ApplicationStatus.DEPLOYING,
            "the status without it",
        )
    finally:
        os.kill(instance.record.supervisor_pid, signal.SIGCONT)
    wait_until(
        lambda: instance.status().applications["default"].status is ApplicationStatus.RUNNING,
        "the status with its successor",
    )
    assert {ProxyStatus.HEALTHY} == set(instance.status().proxies.values())


def test_a_controller_that_was_killed_does_not_say_running_before_it_knows(start: Start) -> None:
    instance = start(num_ingress=2)
    run(instance)
    (controller,) = pids(instance, "controller")

    os.kill(controller, signal.SIGKILL)
    first = instance.status()

    if first.applications["default"].status is ApplicationStatus.RUNNING:
        assert {ProxyStatus.HEALTHY} == set(first.proxies.values())
    wait_until(
        lambda: instance.status().applications["default"].status is ApplicationStatus.RUNNING,
        "the status of the next controller",
    )
