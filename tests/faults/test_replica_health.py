"""Replicas that are frozen, blocked or unhealthy: what callers see, who is replaced, who is left alone."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.fault_apps import Checked, Victim
from tests.waiting import wait_until
from trygon import serve
from trygon.control.old_logs import KEPT_LOGS
from trygon.serve.exceptions import ReplicaDiedError
from trygon.serve.handle import DeploymentHandle
from trygon.serve.session import current_session


@pytest.fixture
def go_on(short_path: Path) -> Iterator[Path]:
    """Give a file that lets blocked code go on when it exists; it does at the end, whatever happens."""
    path = short_path / "go-on"
    yield path
    path.touch()


def _message() -> str:
    return serve.status().applications["default"].deployments["Victim"].message


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _pids(handle: DeploymentHandle) -> set[int]:
    """Return who answers now; those who do not are not waited for."""
    found = set()
    for call in [handle.pid.remote() for _ in range(20)]:
        try:
            found.add(call.result(timeout_s=0.5))
        except (TimeoutError, ReplicaDiedError):
            continue
    return found


@pytest.mark.linux
@pytest.mark.timeout(60)
def test_a_frozen_process_is_replaced_within_ten_seconds_and_its_requests_fail(url: str) -> None:
    handle = serve.run(Victim.bind())
    frozen = handle.pid.remote().result()

    began = time.monotonic()
    os.kill(frozen, signal.SIGSTOP)
    caught = handle.pid.remote()
    with httpx.Client(base_url=url, timeout=30) as client:
        # Not idempotent: it is not sent to another.
        answer = client.post("/")
    with pytest.raises(ReplicaDiedError, match="died"):
        caught.result(timeout_s=20)
    replacement = wait_until(lambda: handle.pid.remote().result(timeout_s=20), "an answer")
    took_s = time.monotonic() - began

    assert 502 == answer.status_code
    assert frozen != replacement
    assert _is_gone(frozen)
    assert took_s < 10.0
    wait_until(lambda: serve.status().applications["default"].status == "RUNNING", "the application")


@pytest.mark.linux
@pytest.mark.timeout(60)
def test_a_frozen_replica_does_not_hold_up_the_shutdown() -> None:
    serve.start(http_options={"port": 0})
    handle = serve.run(Victim.options(graceful_shutdown_timeout_s=60).bind())
    frozen = handle.pid.remote().result()
    os.kill(frozen, signal.SIGSTOP)

    began = time.monotonic()
    serve.shutdown()

    assert _is_gone(frozen)
    assert time.monotonic() - began < 12.0


@pytest.mark.timeout(90)
def test_a_blocked_loop_is_told_helped_and_left_alive(url: str, go_on: Path) -> None:
    handle = serve.run(Victim.options(num_replicas=1).bind())
    blocked_pid = handle.pid.remote().result()
    blocked = handle.block.remote(str(go_on))

    message = wait_until(lambda: "fault_apps.py:" in _message() and _message(), "the place", timeout_s=10)
    assert "its loop is blocked for" in message
    assert "UNHEALTHY" == serve.status().applications["default"].status
    # A request that is sent while nobody else is there waits for the blocked one; later ones find the helper.
    helper = wait_until(lambda: _answer(handle), "an answer of the helper", timeout_s=30)
    assert blocked_pid != helper
    assert "RUNNING" == serve.status().applications["default"].status
    assert not _is_gone(blocked_pid)

    go_on.touch()
    assert blocked_pid == blocked.result(timeout_s=10)
    wait_until(lambda: _is_gone(helper), "the helper to leave", timeout_s=30)
    assert {blocked_pid} == _pids(handle)
    assert "" == _message()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("method", ["block", "hang_check"])
def test_a_replica_that_cannot_be_checked_is_replaced_at_its_limits(
    url: str, go_on: Path, method: str
) -> None:
    limits = {"health_check_period_s": 1.0, "health_check_timeout_s": 1.0, "graceful_shutdown_timeout_s": 1.0}
    handle = serve.run(Checked.options(**limits).bind())
    sick = handle.pid.remote().result()

    began = time.monotonic()
    call = getattr(handle, method).remote(str(go_on))
    wait_until(lambda: _is_gone(sick), "the end of the sick replica", timeout_s=30)

    # Three checks of a second each must have failed; the first may have begun at once.
    assert 3.0 <= time.monotonic() - began
    assert sick != wait_until(lambda: _answer(handle), "an answer of another", timeout_s=20)
    if method == "block":
        with pytest.raises(ReplicaDiedError):
            call.result(timeout_s=5)


def _answer(handle: DeploymentHandle) -> int | None:
    try:
        return int(handle.pid.remote().result(timeout_s=2))
    except (ReplicaDiedError, TimeoutError):
        return None


@pytest.mark.linux
@pytest.mark.slow
@pytest.mark.timeout(90)
def test_native_code_that_holds_the_interpreter_lock_is_not_taken_for_a_frozen_process(url: str) -> None:
    handle = serve.run(Checked.bind())
    pid = handle.pid.remote().result()

    held_s = handle.hold_interpreter.remote(10.0).result(timeout_s=60)

    assert held_s >= 10.0
    assert pid == handle.pid.remote().result(timeout_s=10)


_kinds = itertools.count()


def _let_one_die(handle: DeploymentHandle) -> None:
    with pytest.raises(ReplicaDiedError):
        # Each of its own kind: a kind that has ended two replicas is refused.
        handle.die.remote(next(_kinds)).result(timeout_s=20)


@pytest.mark.timeout(60)
def test_a_crash_loop_is_told_and_serves_again_when_it_is_over(url: str) -> None:
    handle = serve.run(Victim.bind())

    def is_told() -> bool:
        _let_one_die(handle)
        return "it is crash-looping" in _message()

    wait_until(is_told, "the crash loop to be told", timeout_s=40)

    assert handle.pid.remote().result(timeout_s=20) > 0
    wait_until(lambda: serve.status().applications["default"].status == "RUNNING", "the application")
    assert "" == _message()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_logs_of_dead_replicas_do_not_fill_the_disk(url: str) -> None:
    handle = serve.run(Victim.options(num_replicas=5).bind())

    for _ in range(KEPT_LOGS + 4):
        _let_one_die(handle)
    wait_until(lambda: serve.status().applications["default"].status == "RUNNING", "the application")

    # Of five that live and of twenty that do not.
    assert KEPT_LOGS + 5 == _count_logs("replica_default_Victim_*.log")


def _count_logs(pattern: str) -> int:
    session = current_session()
    assert session is not None
    return len(list(Path(session.instance.record.log_dir).glob(pattern)))


@pytest.mark.linux
@pytest.mark.timeout(60)
def test_a_frozen_controller_is_replaced_and_the_shutdown_is_orderly() -> None:
    serve.start(http_options={"port": 0})
    handle = serve.run(Victim.bind())
    pid = handle.pid.remote().result()
    controller = _child_of_instance("trygon-controll")
    os.kill(controller, signal.SIGSTOP)

    began = time.monotonic()
    serve.shutdown()

    assert _is_gone(controller)
    assert _is_gone(pid)
    assert time.monotonic() - began < 20.0


def _child_of_instance(name: str) -> int:
    for process in psutil.process_iter():
        try:
            if (
                process.name().startswith(name)
                and process.environ().get("TRYGON_HOME") == os.environ["TRYGON_HOME"]
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                return int(process.pid)
        except (psutil.Error, OSError):
            continue
    raise AssertionError(f"no process is called {name!r}")
