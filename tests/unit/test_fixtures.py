"""The nets under the other tests hold: leaks are seen and named, waits end, the home is the run's own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tests.leaks import Footprint
from tests.waiting import wait_until, wait_until_async

HOME = "/nowhere/that/marks"


def grown(before: Footprint) -> dict[str, list[str]]:
    return Footprint.take(HOME).grown_since(before)


def test_a_child_process_is_seen() -> None:
    before = Footprint.take(HOME)

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = grown(before)
        child.communicate(b"\n")

    (line,) = found["processes"]
    assert line.startswith(f"pid {child.pid}: ")
    assert "processes" not in grown(before)


def test_an_orphan_is_seen_by_its_home() -> None:
    before = Footprint.take(HOME)
    # The middle process ends at once: its child is no longer ours by parentage.
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0, stdout=subprocess.DEVNULL)\n"
        "print(child.pid)"
    )
    hold, give = os.pipe()
    orphan = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        stdin=hold,
        stdout=subprocess.PIPE,
        check=True,
        timeout=20,
        env={**os.environ, "TRYGON_HOME": HOME},
    )

    found = grown(before)
    os.close(hold)
    os.close(give)

    assert [f"pid {int(orphan.stdout)}"] == [line.split(":")[0] for line in found["processes"]]
    wait_until(lambda: "processes" not in grown(before), "the orphan's end")


def test_a_thread_a_socket_and_a_folder_are_seen() -> None:
    before = Footprint.take(HOME)
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="forgotten")
    thread.start()

    with socket.socket() as held, tempfile.TemporaryDirectory() as folder:
        found = grown(before)
        done.set()
        thread.join()

        assert {"threads", "sockets", "folders"} == set(found)
        assert found["threads"][0].startswith("forgotten")
        assert found["sockets"][0].startswith(f"descriptor {held.fileno()}: ")
        assert [folder] == found["folders"]
    assert {} == grown(before)


def test_sockets_of_a_running_instance_are_not_counted() -> None:
    before = Footprint(frozenset({"pid 1: instance"}), frozenset(), frozenset(), frozenset())
    after = Footprint(before.processes, frozenset(), frozenset({"descriptor 5"}), frozenset())

    assert {} == after.grown_since(before)


def test_a_wait_returns_the_first_true_answer() -> None:
    answers = iter([0, None, "ready"])

    assert "ready" == wait_until(lambda: next(answers), "an answer")


def test_a_wait_ends_with_what_was_asked_last() -> None:
    def refuse() -> bool:
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(AssertionError, match=r"waited 0\.05 s for a server; .*nobody listens"):
        wait_until(refuse, "a server", timeout_s=0.05)


def test_a_wait_on_a_loop_takes_coroutines() -> None:
    answers = iter([False, True])

    async def ask() -> bool:
        return next(answers)

    assert asyncio.run(wait_until_async(ask, "an answer"))
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for nothing; the last answer was 0"):
        asyncio.run(wait_until_async(lambda: 0, "nothing", timeout_s=0.05))


def test_the_home_of_the_run_is_short_and_private(isolated_home: Path, short_path: Path) -> None:
    runtime_dir = Path(os.environ["TRYGON_RUNTIME_DIR"])

    assert isolated_home == runtime_dir.parent
    assert 40 > len(str(runtime_dir))
    assert 40 > len(str(short_path))
    assert 0o700 == runtime_dir.stat().st_mode & 0o777
    assert str(isolated_home) in tempfile.gettempdir()


def test_a_free_port_can_be_bound(free_port: int) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port))
