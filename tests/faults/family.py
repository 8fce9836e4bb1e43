"""The processes of this test run's instance, by kind."""

from __future__ import annotations

import contextlib
import os

import psutil

from tests.waiting import wait_until
from trygon.serve.session import current_session


def pids(kind: str) -> set[int]:
    """Return the live processes of a kind: supervisor, controller, ingress, replica."""
    name = f"trygon-{kind}"[:15]
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if (
                process.name() == name
                and process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get("TRYGON_HOME") == os.environ["TRYGON_HOME"]
            ):
                found.add(process.pid)
    return found


def of_session(kind: str) -> set[int]:
    """Return the live processes of a kind of the instance that this process is connected to."""
    session = current_session()
    assert session is not None
    found = set()
    for process in psutil.Process(session.instance.record.pid).children(recursive=True):
        # One that ends while it is looked at is none.
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith(f"trygon-{kind}"[:15]):
                found.add(process.pid)
    return found


def only(kind: str) -> int:
    """Return the one process of a kind, when there is one."""
    return wait_until(lambda: next(iter(pids(kind)), None), f"the {kind}'s process")  # type: ignore[return-value]


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
