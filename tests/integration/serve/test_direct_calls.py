"""Threads that block for each answer: their calls go over a connection of their own, and nothing else changes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.serve.call_apps import Calls
from tests.integration.serve.conftest import RunApp
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import BackPressureError, ReplicaDiedError, RequestCancelledError
from trygon.serve.handle import DeploymentHandle, DeploymentResponse

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(scope="module")
def calls(url: str) -> Iterator[DeploymentHandle]:
    yield serve.run(Calls.bind(), name="direct", route_prefix="/direct")
    serve.delete("direct")


@serve.deployment(max_ongoing_requests=1)
class Single(Calls.func_or_class):  # type: ignore[misc]
    """One request at a time."""

    def pid(self) -> int:
        return os.getpid()


@serve.deployment(max_ongoing_requests=1, max_queued_requests=1, graceful_shutdown_timeout_s=0.5)
class Bounded(Calls.func_or_class):  # type: ignore[misc]
    """One request at a time, and one that waits."""


def direct(handle: DeploymentHandle, method: str, *args: Any) -> DeploymentResponse:
    """Make a call that goes over a line: the thread has waited for the one before."""
    for _ in range(20):
        handle.aecho.remote(0).result(timeout_s=5)
        response = handle.options(method_name=method).remote(*args)
        assert isinstance(response, DeploymentResponse)
        if response._call.line is not None or response._call.outcome.is_done:
            return response
        response.cancel()
    raise AssertionError("no call went over a line")


def test_results_and_errors_are_the_same(calls: DeploymentHandle) -> None:
    assert [[1], {}] == direct(calls, "__call__", 1).result(timeout_s=5)
    assert "x" * 3_000_000 == direct(calls, "lengthen", "x", 3_000_000).result(timeout_s=5)
    assert "x" * 300_000 == direct(calls, "lengthen", "x", 300_000).result(timeout_s=5)
    with pytest.raises(ValueError, match="a bad value"):
        direct(calls, "raises", "value").result(timeout_s=5)
    assert [1] == direct(calls, "echo", [1]).result(timeout_s=5)


def test_an_answer_that_takes_long_arrives(calls: DeploymentHandle) -> None:
    response = direct(calls, "wait", "long")

    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.01)
    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.2)
    calls.open.remote("long").result(timeout_s=5)

    assert "long" == response.result(timeout_s=5)
    assert "long" == response.result(timeout_s=5)


def test_a_response_may_be_awaited_passed_on_or_waited_for_by_another_thread(calls: DeploymentHandle) -> None:
    async def wait(response: DeploymentResponse) -> Any:
        return await response

    assert 1 == asyncio.run(wait(direct(calls, "echo", 1)))
    assert [[2], {}] == calls.remote(direct(calls, "echo", 2)).result(timeout_s=5)
    response = direct(calls, "wait", "other-thread")
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(response.result, timeout_s=10) for _ in range(2)]
        calls.open.remote("other-thread").result(timeout_s=5)
        assert ["other-thread"] * 2 == [one.result(10) for one in waiting]


def test_cancel_ends_the_wait_and_the_work_at_once(calls: DeploymentHandle) -> None:
    response = direct(calls, "wait", "cancelled")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(response.result, timeout_s=10)
        response.cancel()
        with pytest.raises(RequestCancelledError):
            waiting.result(5)

    with pytest.raises(RequestCancelledError):
        response.result(timeout_s=1)
    wait_until(
        lambda: "cancelled: cancelled" in calls.report.remote().result()["done"],
        "the CancelledError in user code",
    )


def test_calls_that_nobody_reads_do_not_hold_up_others(run_app: RunApp) -> None:
    handle = run_app(Single.bind(), name="single", route_prefix=None)
    unread = direct(handle, "aecho", "unread")

    others = [handle.aecho.remote(number) for number in range(5)]

    assert [0, 1, 2, 3, 4] == [other.result(timeout_s=5) for other in others]
    assert "unread" == unread.result(timeout_s=5)


def test_a_dropped_response_leaves_the_request_alone(calls: DeploymentHandle) -> None:
    direct(calls, "wait", "dropped")
    gc.collect()
    wait_until(lambda: calls.count.remote("dropped").result(timeout_s=5) == 1, "the call to enter")

    calls.open.remote("dropped").result(timeout_s=5)

    wait_until(lambda: "dropped: opened" in calls.report.remote().result()["done"], "its end")


def test_a_full_replica_lets_a_direct_call_wait_in_the_queue(run_app: RunApp) -> None:
    handle = run_app(Bounded.bind(), name="bounded", route_prefix=None)
    inside, entered = threading.Event(), threading.Event()

    def occupy() -> Any:
        handle.aecho.remote(0).result(timeout_s=5)
        response = handle.wait_in_thread.remote("full")
        entered.set()
        inside.wait(10)
        response.cancel()

    with ThreadPoolExecutor(1) as threads:
        handle.aecho.remote(0).result(timeout_s=5)
        occupying = threads.submit(occupy)
        entered.wait(5)
        queued = handle.aecho.remote("queued")
        with pytest.raises(TimeoutError):
            queued.result(timeout_s=0.2)
        with pytest.raises(BackPressureError):
            handle.aecho.remote("too many").result(timeout_s=5)
        queued.cancel()
        inside.set()
        occupying.result(5)


def test_an_unread_call_does_not_delay_a_redeploy(run_app: RunApp) -> None:
    handle = run_app(Single.options(graceful_shutdown_timeout_s=20).bind(), name="single", route_prefix=None)
    first = handle.pid.remote().result(timeout_s=5)
    unread = direct(handle, "pid")

    run_app(Single.options(graceful_shutdown_timeout_s=20).bind(), name="single", route_prefix=None)

    assert first != handle.pid.remote().result(timeout_s=5)
    wait_until(lambda: not _is_alive(first), "the old replica to end well before its grace", timeout_s=5)
    assert first == unread.result(timeout_s=5)


def test_a_killed_replica_fails_its_direct_call_at_once_and_no_other(run_app: RunApp) -> None:
    handle = run_app(Single.options(max_ongoing_requests=5).bind(), name="single", route_prefix=None)
    pid = handle.pid.remote().result(timeout_s=5)
    waiting = direct(handle, "wait", "killed")

    os.kill(pid, signal.SIGKILL)

    with pytest.raises(ReplicaDiedError):
        waiting.result(timeout_s=5)
    assert pid != handle.pid.remote().result(timeout_s=10)


def test_many_threads_with_calls_of_all_kinds_get_their_own_answers(calls: DeploymentHandle) -> None:
    def work(number: int) -> int:
        for step in range(100):
            value = (number, step)
            response = calls.aecho.remote(value)
            if step % 7 == 0:
                response.cancel()
            elif step % 5 != 0:
                assert value == response.result(timeout_s=10)
        return number

    with ThreadPoolExecutor(12) as threads:
        assert list(range(12)) == list(threads.map(work, range(12)))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
