"""kill -9 of the supervisor: the instance ends with all that its replicas started, and the program goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.faults.family import lives, only, pids
from tests.faults.fault_apps import Victim
from tests.waiting import wait_until
from trygon import serve
from trygon.errors import TrygonError


@serve.deployment
class Parent(Victim.func_or_class):  # type: ignore[misc, name-defined]
    """Has two programs running, one of them in a session of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.children = [
            subprocess.Popen(["sleep", "600"]),
            subprocess.Popen(["sleep", "600"], start_new_session=True),
        ]

    async def child_pids(self) -> list[int]:
        return [child.pid for child in self.children]


def test_everyone_hears_of_a_killed_supervisor_and_the_program_starts_again(url: str) -> None:
    handle = serve.run(Parent.bind())
    everyone = set().union(*map(pids, ("supervisor", "controller", "ingress", "replica")))
    assert 4 == len(everyone)
    everyone |= set(handle.child_pids.remote().result(timeout_s=10))

    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(httpx.get, f"{url}/?door=never", timeout=30)
        waiting = handle.wait.remote("never")
        wait_until(lambda: 2 == handle.count.remote("never").result(timeout_s=10), "both requests to enter")
        os.kill(only("supervisor"), signal.SIGKILL)

        with pytest.raises(httpx.TransportError):
            asking.result(10)
        with pytest.raises(TrygonError):
            waiting.result(timeout_s=10)
    wait_until(lambda: not any(map(lives, everyone)), "everything to end")
    with pytest.raises(TrygonError):
        handle.pid.remote().result(timeout_s=10)

    again = serve.run(Victim.bind())
    assert again.pid.remote().result(timeout_s=10) in pids("replica") - everyone
