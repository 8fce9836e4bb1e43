"""Requests of a deployment with a router of the user's, while the process that runs it dies or stops."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.family import only, pids
from tests.integration.serve.routing_apps import ByNumber, Faulty, Place
from tests.integration.serve.scaling_load import Load, http_caller
from tests.waiting import wait_until
from trygon import serve

pytestmark = pytest.mark.timeout(90)


def test_no_request_fails_when_the_helper_is_killed_again_and_again(url: str) -> None:
    config = {"request_router_class": ByNumber}
    handle = serve.run(Place.options(request_router_config=config).bind())
    assert handle.remote(0).result(timeout_s=20)
    load = Load()

    with http_caller(url, "/?n=1") as call, load.on(6, call), load.on(6, _caller(handle)):
        for _ in range(3):
            victim, so_far = only("helper"), len(load.answers)
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda v=victim: pids("helper") - {v}, "another helper", timeout_s=20)
            wait_until(lambda n=so_far: len(load.answers) > n + 200, "requests meanwhile", timeout_s=20)

    assert [] == load.errors
    wait_until(
        lambda: 1 == len({handle.remote(1).result(timeout_s=10) for _ in range(12)}),
        "a router again",
        timeout_s=20,
    )


def test_a_stopped_helper_holds_up_no_request_for_long_and_fails_none(url: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text("")
    config = {"request_router_class": Faulty, "request_router_kwargs": {"path": str(said)}}
    handle = serve.run(Place.options(request_router_config=config).bind())
    assert handle.remote().result(timeout_s=20)
    load = Load()

    with http_caller(url, "/") as call, load.on(6, call):
        wait_until(lambda: load.answers, "an ingress that knows its router", timeout_s=20)
        helper = only("helper")
        os.kill(helper, signal.SIGSTOP)
        try:
            wait_until(lambda: _message(), "the failure in the status", timeout_s=20)
            so_far = len(load.answers)
            wait_until(lambda: len(load.answers) > so_far + 500, "requests that do not wait", timeout_s=10)
        finally:
            os.kill(helper, signal.SIGCONT)
        wait_until(lambda: not _message(), "no failure in the status", timeout_s=30)

    assert [] == load.errors


def test_a_killed_controller_costs_no_request_and_the_router_comes_back(url: str) -> None:
    config = {"request_router_class": ByNumber}
    handle = serve.run(Place.options(request_router_config=config).bind())
    assert handle.remote(0).result(timeout_s=20)
    load = Load()

    with http_caller(url, "/?n=2") as call, load.on(6, call):
        victim = only("controller")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: pids("controller") - {victim}, "another controller", timeout_s=20)
        wait_until(
            lambda: 1 == len({handle.remote(1).result(timeout_s=10) for _ in range(12)}),
            "a router again",
            timeout_s=30,
        )

    assert [] == load.errors


def test_killed_replicas_are_left_out_and_their_requests_sent_again(url: str) -> None:
    for rule in ("consistent_hash", "round_robin", ByNumber):
        config = {"request_router_class": rule}
        serve.run(Place.options(request_router_config=config).bind())
        load = Load()

        with http_caller(url, "/?n=1") as call, load.on(6, call):
            wait_until(lambda load=load: len(load.answers) > 100, "requests", timeout_s=20)
            before = pids("replica")
            os.kill(min(before), signal.SIGKILL)
            wait_until(lambda before=before: pids("replica") - before, "another replica", timeout_s=20)
            so_far = len(load.answers)
            wait_until(
                lambda load=load, n=so_far: len(load.answers) > n + 100, "requests after it", timeout_s=20
            )

        assert [] == load.errors


def _caller(handle: object):  # type: ignore[no-untyped-def]
    return lambda: handle.remote(2).result(timeout_s=20)  # type: ignore[attr-defined]


def _message() -> str:
    return str(serve.status().applications["default"].deployments["Place"].message)
