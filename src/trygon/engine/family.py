"""Ends of processes: how one ended, in words, and ending all that it had started."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Container

from trygon.engine.platform import Platform

__all__ = ["describe_exit", "end_family", "end_group", "end_strays", "send_signal"]


def describe_exit(code: int) -> str:
    """Say how a process ended, from what os.waitstatus_to_exitcode returns."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}"


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def end_group(pid: int) -> None:
    """End the process group that `pid` leads, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def end_family(platform: Platform, pid: int, replica_id: str, own: Container[int]) -> None:
    """End what a replica started: its group, its session, and what left both but kept its environment.

    Args:
        platform: The kernel's services.
        pid: The replica, which has just been reaped.
        replica_id: Its name, which stands in the environment of all it exec'ed.
        own: Children that are not orphans.
    """
    end_group(pid)
    for member in platform.session_members(pid):
        send_signal(member, signal.SIGKILL)
    marker = f"TRYGON_REPLICA_ID={replica_id}".encode()
    for orphan in platform.children():
        if orphan in own:
            continue
        with contextlib.suppress(OSError), open(f"/proc/{orphan}/environ", "rb") as file:
            if marker in file.read().split(b"\0"):
                send_signal(orphan, signal.SIGKILL)


def end_strays(platform: Platform) -> None:
    """End every child that is left, and those that become children thereby, until there is none."""
    while orphans := platform.children():
        for orphan in orphans:
            send_signal(orphan, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
