"""What the machine does to an instance: no descriptors left, a full disk, a clock that jumps."""

from __future__ import annotations

import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from tests.faults.family import lives, only, pids
from tests.faults.open_loop import kept_and_new, sending
from tests.integration.serve.change_apps import Version
from tests.waiting import wait_until
from trygon import serve

pytestmark = pytest.mark.linux

DAY_S = 86_400
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


# ---- descriptors


def test_an_ingress_without_descriptors_serves_who_is_connected_and_later_everybody(url: str) -> None:
    serve.run(Version.bind(1))
    ingress = only("ingress")
    port = httpx.URL(url).port
    assert port is not None

    with ExitStack() as stack:
        kept = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)))
        assert 200 == ask(kept)
        # One that the ingress has closed is to fail, and not to be opened again.
        kept.auto_open = 0
        _, hard = limits = resource.prlimit(ingress, resource.RLIMIT_NOFILE)
        stack.callback(give_back, ingress, limits)
        few = len(os.listdir(f"/proc/{ingress}/fd")) + 4
        resource.prlimit(ingress, resource.RLIMIT_NOFILE, (few, hard))
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(50)
        ]

        # The oldest silent one is closed for a newcomer, never who asks.
        while not select.select(crowd, [], [], 0)[0]:
            assert 200 == ask(kept)
        give_back(ingress, limits)

        assert 200 == httpx.get(url, timeout=10).status_code
        assert 200 == ask(kept)
    assert ingress == only("ingress")


def ask(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def give_back(pid: int, limits: tuple[int, int]) -> None:
    if lives(pid):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


# ---- disk


@pytest.fixture
def small_disk(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the instance's state directory a file system of 4 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(short_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    monkeypatch.setenv("TRYGON_HOME", str(short_path))
    yield short_path
    subprocess.run(["umount", "--lazy", str(short_path)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave no byte for the length of the block."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 1):
            try:
                while size == file.write(bytes(size)):
                    pass
            except OSError:
                continue
    yield
    filler.unlink()


@pytest.mark.root
@pytest.mark.tool("mount")
def test_a_full_disk_stops_no_request_and_no_replacement(small_disk: Path, tmp_path: Path) -> None:
    serve.start(http_options={"port": 0})
    try:
        url = serve.http_address()
        serve.run(Version.options(num_replicas=2).bind(1))
        with sending(url, kept_and_new(), tmp_path) as seen:
            with full(small_disk):
                before = pids("replica")
                controller = only("controller")
                os.kill(controller, signal.SIGKILL)
                wait_until(lambda: pids("controller") - {controller}, "another controller")
                victim = min(before)
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda: 2 == len(pids("replica") - {victim}), "a replacement")
            serve.run(Version.options(num_replicas=2).bind(2))
            assert 2 == httpx.get(url).json()[0]
    finally:
        serve.shutdown()

    # Only what was on the killed replica may be lost: less than the one second that notices a longer outage.
    assert set(seen.outcomes()) <= {"200", "502"}
    assert seen.outcomes()["502"] < 15


# ---- clock


@serve.deployment(num_replicas=2)
class Clock:
    """Tells what time it is, to its mind, and how often it was asked."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, _: Request) -> Any:
        self.count += 1
        return [time.time(), os.getpid(), self.count]


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime")
def test_a_clock_that_jumps_a_day_hurts_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    with monkeypatch.context() as at_start:
        at_start.setenv("LD_PRELOAD", str(FAKETIME))
        at_start.setenv("FAKETIME_TIMESTAMP_FILE", str(offset))
        at_start.setenv("FAKETIME_NO_CACHE", "1")
        # The wall clock is what NTP or a person sets; the monotonic one never jumps.
        at_start.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        serve.start(http_options={"port": 0})
    try:
        url = serve.http_address()
        serve.run(Clock.bind())
        before = {kind: pids(kind) for kind in ("controller", "ingress", "replica")}
        with sending(url, kept_and_new(), tmp_path) as seen:
            for days in (1, 0, -1, 0):
                offset.write_text(f"{days * DAY_S:+d}\n")
                wait_until(lambda days=days: days == round(ahead_s(url) / DAY_S), "the clock to jump")
                assert "RUNNING" == serve.status().applications["default"].status
                enough = asked(url) + 20
                wait_until(lambda enough=enough: asked(url) > enough, "requests at that time")
        after = {kind: pids(kind) for kind in before}
    finally:
        serve.shutdown()

    assert {"200"} == set(seen.outcomes())
    assert before == after


def asked(url: str) -> int:
    return int(json.loads(httpx.get(url, timeout=10).text)[2])


def ahead_s(url: str) -> float:
    return float(json.loads(httpx.get(url, timeout=10).text)[0]) - time.time()
