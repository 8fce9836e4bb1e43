"""One time for a request and everything below it: what is late is cancelled, and what has not begun never begins."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.serve.conftest import RunApp
from tests.integration.serve.deadline_apps import Leaf, Narrow, deep
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import RequestTimeoutError
from trygon.serve.handle import DeploymentHandle


@pytest.fixture(scope="module")
def top(url: str) -> Iterator[DeploymentHandle]:
    yield serve.run(deep, name="deep", route_prefix="/deep")
    serve.delete("deep")


@pytest.fixture
def leaf(top: DeploymentHandle) -> DeploymentHandle:
    return serve.get_deployment_handle("Leaf", "deep")


def wait_cancelled(leaf: DeploymentHandle, door: str) -> None:
    wait_until(
        lambda: f"{door}: cancelled" in leaf.report.remote().result()["done"], f"{door} to be cancelled"
    )


@pytest.mark.parametrize("do", ["__call__", "sync"])
def test_a_handles_time_reaches_the_bottom_and_cancels_it(
    top: DeploymentHandle, leaf: DeploymentHandle, do: str
) -> None:
    call = top.options(timeout_s=0.3).call.remote("timed", f"timed {do}", do)

    with pytest.raises(RequestTimeoutError, match="did not end within its time"):
        call.result(timeout_s=10)

    wait_cancelled(leaf, f"timed {do}")


@pytest.mark.parametrize("do", ["__call__", "sync"])
def test_the_time_that_is_left_is_known_at_the_bottom(top: DeploymentHandle, do: str) -> None:
    left_s = top.options(timeout_s=20).call.remote("left", "", do).result()

    assert 10 < left_s <= 20
    assert top.call.remote("left", "", do).result() is None


def test_the_shorter_of_two_times_counts(top: DeploymentHandle, client: httpx.Client) -> None:
    ask = {"do": "own_limit", "name": "x"}

    shorter_own = client.get(
        "/deep", params={**ask, "timeout": "5"}, headers={"X-Request-Timeout-Seconds": "15"}
    )
    shorter_caller = client.get(
        "/deep", params={**ask, "timeout": "15"}, headers={"X-Request-Timeout-Seconds": "5"}
    )

    assert 0 < shorter_own.json() <= 5
    assert 0 < shorter_caller.json() <= 5


def test_a_clients_deadline_cancels_the_whole_graph(leaf: DeploymentHandle, client: httpx.Client) -> None:
    answer = client.get(
        "/deep", params={"name": "http", "door": "http late"}, headers={"X-Request-Timeout-Seconds": "0.2"}
    )

    assert 408 == answer.status_code
    wait_cancelled(leaf, "http late")


def test_a_childs_own_time_that_nobody_catches_is_504(leaf: DeploymentHandle, client: httpx.Client) -> None:
    answer = client.get(
        "/deep", params={"do": "own_limit", "name": "n", "door": "child late", "timeout": "0.1"}
    )

    assert 504 == answer.status_code
    assert "did not end within its time" in answer.text
    wait_cancelled(leaf, "child late")


def test_a_childs_own_time_can_be_caught_as_a_timeout(leaf: DeploymentHandle) -> None:
    middle = serve.get_deployment_handle("Middle", "deep")

    assert "RequestTimeoutError" == middle.swallow.remote("swallowed").result(timeout_s=10)


def test_what_waits_in_a_queue_too_long_never_begins(run_app: RunApp, tmp_path: Path) -> None:
    handle = run_app(Narrow.bind(), name="narrow", route_prefix=None)
    first = handle.remote("first", str(tmp_path / "begun"))
    wait_until((tmp_path / "begun").exists, "the only slot to be taken")
    late = [handle.options(timeout_s=0.05).remote(f"late {number}") for number in range(20)]

    for call in late:
        with pytest.raises(RequestTimeoutError):
            call.result(timeout_s=10)
    first.cancel()

    assert ["first"] == handle.begun.remote().result(timeout_s=10)


def test_what_arrives_late_in_a_replica_never_begins(run_app: RunApp, tmp_path: Path) -> None:
    handle = run_app(Leaf.bind(), name="late", route_prefix=None)
    block = handle.block.remote(str(tmp_path / "blocked"), 0.6)
    wait_until((tmp_path / "blocked").exists, "the loop to stand still")

    # They are in the replica's socket while its loop stands still.
    late = [
        handle.options(timeout_s=0.2, method_name=method).remote("late")
        for method in ("__call__", "in_thread")
    ]

    for call in late:
        with pytest.raises(RequestTimeoutError):
            call.result(timeout_s=10)
    block.result(timeout_s=10)
    assert ["block"] == handle.begun.remote().result(timeout_s=10)


def test_a_late_answer_in_an_event_loop_is_the_same_error(
    top: DeploymentHandle, leaf: DeploymentHandle
) -> None:
    async def ask() -> None:
        await top.options(timeout_s=0.2).call.remote("async", "async late")

    with pytest.raises(RequestTimeoutError):
        asyncio.run(ask())

    wait_cancelled(leaf, "async late")


def test_a_call_in_time_is_not_touched_and_its_handle_travels(top: DeploymentHandle) -> None:
    hurried = pickle.loads(pickle.dumps(top.options(timeout_s=20)))

    assert 0 < hurried.call.remote("ok").result() <= 20
    assert hurried.options(timeout_s=0).call.remote("ok").result() is None


@pytest.mark.parametrize("wrong", [-1, float("inf"), float("nan")])
def test_what_is_no_time_is_refused(top: DeploymentHandle, wrong: float) -> None:
    with pytest.raises(ValueError, match="timeout_s is a number of seconds"):
        top.options(timeout_s=wrong)


def test_slots_are_free_after_a_thousand_deadlines(top: DeploymentHandle, leaf: DeploymentHandle) -> None:
    hurried = top.options(timeout_s=0.2)
    calls = [hurried.call.remote("many", "many") for _ in range(900)]

    for call in calls:
        with pytest.raises(RequestTimeoutError):
            call.result(timeout_s=10)

    wait_until(lambda: leaf.count.remote("many").result() == 0, "everything below to be cancelled")
    # All slots of all three, at once.
    again = [top.call.remote("again") for _ in range(900)]
    assert [None] * 900 == [call.result(timeout_s=10) for call in again]
