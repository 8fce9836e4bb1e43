"""Kills and full disks while the state is written: what was acknowledged is kept, traffic does not notice."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.family import of_session
from tests.faults.fault_apps import Victim
from tests.faults.store_kills import run_rounds
from tests.waiting import wait_until
from trygon import serve
from trygon.client.instance import connect_or_start
from trygon.errors import InstanceError
from trygon.spec.instance import InstanceConfig

UNLIMITED = resource.RLIM_INFINITY


def controller_pid() -> int:
    return wait_until(lambda: next(iter(of_session("controller")), 0), "the controller's process")


def test_kills_in_the_middle_of_saving_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert run_rounds(tmp_path, 15) >= 15


@pytest.fixture
def detached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_path: Path) -> Iterator[Path]:
    """The folder of a detached instance, which serves a Victim; it is shut down after the test."""
    monkeypatch.setenv("TRYGON_RUNTIME_DIR", str(short_path))
    monkeypatch.setenv("TRYGON_INSTANCE", "kept")
    config = InstanceConfig(
        name="", runtime_dir=str(short_path), state_dir=str(tmp_path), port=0, attached=False
    )
    instance = connect_or_start(config, name="kept")
    serve.run(Victim.bind())
    yield tmp_path / "kept"
    serve.shutdown()
    instance.shutdown(grace_s=0.1)


@pytest.mark.linux
def test_a_full_disk_refuses_the_deploy_and_nothing_else(detached: Path) -> None:
    with httpx.Client(base_url=serve.http_address(), timeout=10) as client:
        pid = controller_pid()
        # Every write of the controller fails from here on, as on a full disk.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, UNLIMITED))

        with pytest.raises(InstanceError) as refused:
            serve.run(Victim.bind(), name="second", route_prefix="/second")

        assert "cannot be saved" in str(refused.value)
        assert "nothing was changed" in str(refused.value)
        assert 200 == client.get("/").status_code
        assert {"default"} == serve.status().applications.keys()

        resource.prlimit(pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))
        serve.run(Victim.bind(), name="second", route_prefix="/second")

        assert 200 == client.get("/second").status_code
        assert pid == controller_pid(), "no restart was needed"


@contextlib.contextmanager
def failing_fsync(pid: int, path: Path) -> Iterator[None]:
    """Let every fsync of `path` by a process fail as that of a broken disk does, until the block is left."""
    command = [
        "strace",
        "-f",
        "-p",
        str(pid),
        "-P",
        str(path),
        "-e",
        "trace=fsync",
        "-e",
        "inject=fsync:error=EIO",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = ""
        while "attached" not in said:
            line = tracer.stderr.readline()
            if not line:
                pytest.skip(f"strace may not attach here: {said.strip()}")
            said += line
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()


@pytest.mark.linux
@pytest.mark.tool("strace")
@pytest.mark.parametrize("broken", ["state.new", ".", "state.blobs"])
def test_a_disk_that_does_not_confirm_refuses_the_deploy_and_nothing_else(
    detached: Path, broken: str
) -> None:
    with httpx.Client(base_url=serve.http_address(), timeout=10) as client:
        pid = controller_pid()
        with failing_fsync(pid, detached / broken):
            with pytest.raises(InstanceError, match=r"cannot be saved.*nothing was changed"):
                serve.run(Victim.bind(os.urandom(100_000)), name="second", route_prefix="/second")

            assert 200 == client.get("/").status_code
            assert {"default"} == serve.status().applications.keys()

        # What was refused does not come true later.
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: controller_pid() != pid, "another controller")
        assert {"default"} == serve.status().applications.keys()

        serve.run(Victim.bind(os.urandom(100_000)), name="second", route_prefix="/second")

        assert 200 == client.get("/second").status_code


def test_a_state_directory_that_went_away_refuses_the_deploy_until_it_is_back(detached: Path) -> None:
    aside = detached.with_name("aside")
    detached.rename(aside)
    try:
        with pytest.raises(InstanceError, match="cannot be saved"):
            serve.run(Victim.bind(), name="second", route_prefix="/second")
        assert 200 == httpx.get(serve.http_address() + "/").status_code
    finally:
        shutil.rmtree(detached, ignore_errors=True)
        aside.rename(detached)

    serve.run(Victim.bind(), name="second", route_prefix="/second")

    wait_until(lambda: httpx.get(serve.http_address() + "/second").status_code == 200, "the second one")
