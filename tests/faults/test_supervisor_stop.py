"""A supervisor that is stopped holds nobody up for long: requests go on, and so does it after a while."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.fault_apps import Victim
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.session import current_session

#: As the documentation says.
LET_GO_ON_AFTER_S = 5.0


def supervisor() -> int:
    session = current_session()
    assert session is not None
    return session.instance.record.supervisor_pid


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_stopped_supervisor_goes_on_and_starts_what_is_missing(url: str) -> None:
    handle = serve.run(Victim.options(num_replicas=2).bind())
    pids = {handle.pid.remote().result() for _ in range(60)}
    assert 2 == len(pids)
    pid = supervisor()

    begun = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        os.kill(min(pids), signal.SIGKILL)
        with httpx.Client(base_url=url, timeout=20) as client:
            # The caller may be in the middle of hearing of the death.
            wait_until(lambda: client.get("/").status_code == 200, "an answer of the other one")
            while psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                assert max(pids) == client.get("/").json()
        stopped_s = time.monotonic() - begun
        wait_until(
            lambda: {handle.pid.remote().result(timeout_s=10) for _ in range(10)} - pids, "its replacement"
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    assert LET_GO_ON_AFTER_S - 0.5 < stopped_s < LET_GO_ON_AFTER_S + 3
    assert pid == supervisor()
    logs = Path(os.environ["TRYGON_HOME"]).glob("instances/*/logs/supervisor.log")
    assert any("has been stopped for 5 s and is let go on" in log.read_text() for log in logs)
