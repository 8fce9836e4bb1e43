"""A replica that the kernel kills because memory ran out, in a memory control group of the test's own."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_apps import Hoarder
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import ReplicaDiedError

#: An instance with one replica needs about a third of it.
LIMIT_BYTES = 400_000_000


def _own_group() -> tuple[Path, str]:
    """Return this process's memory control group, and the name of its limit's file."""
    root = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mounted = root / "memory" / path.lstrip("/")
            return (mounted if mounted.is_dir() else root / "memory"), "memory.limit_in_bytes"
        if number == "0" and not (root / "memory").is_dir():
            mounted = root / path.lstrip("/")
            return (mounted if mounted.is_dir() else root), "memory.max"
    pytest.skip("this machine has no memory control groups")


@pytest.fixture
def limited_url() -> Iterator[str]:
    """Start an instance whose processes may have no more memory together than the limit."""
    own, limit = _own_group()
    group = own / f"trygon-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"a memory control group cannot be made here: {error}")
    try:
        try:
            (group / limit).write_text(str(LIMIT_BYTES))
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            pytest.skip(f"a memory control group cannot be used here: {error}")
        try:
            serve.start(http_options={"port": 0})
        finally:
            # What was started stays; this process must not be the one that is killed.
            (own / "cgroup.procs").write_text(str(os.getpid()))
        yield serve.http_address()
        serve.shutdown()
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text().split(), "the end of the instance")
        group.rmdir()


@pytest.mark.linux
@pytest.mark.timeout(60)
def test_a_kill_for_memory_is_told_with_the_peak_and_another_kill_is_not(limited_url: str) -> None:
    handle = serve.run(Hoarder.bind())
    first = handle.pid.remote().result()

    with pytest.raises(ReplicaDiedError):
        handle.hoard.remote(2 * LIMIT_BYTES).result(timeout_s=30)
    wait_until(lambda: "memory ran out" in _story("Hoarder"), "the reason")

    told = re.search(r"was killed because memory ran out \(peak ([0-9.]+) MB\)", _story("Hoarder"))
    assert told is not None
    assert 100.0 < float(told[1]) <= LIMIT_BYTES / 1e6
    second = wait_until(lambda: handle.pid.remote().result(timeout_s=10), "an answer")
    assert first != second

    os.kill(second, signal.SIGKILL)
    wait_until(lambda: "killed by SIGKILL" in _story("Hoarder"), "the reason of the other kill")
    assert 1 == _story("Hoarder").count("memory ran out")


def _story(deployment: str) -> str:
    """Return what the controller's log says of the replicas of a deployment."""
    logs = Path(os.environ["TRYGON_HOME"]).glob("instances/*/logs/controller.log")
    lines = [line for log in logs for line in log.read_text().splitlines()]
    return "\n".join(line for line in lines if f"#{deployment}#" in line)
