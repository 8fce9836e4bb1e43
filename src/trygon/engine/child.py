"""The first steps of a forked child: leave the supervisor's things behind, then run, then end. Never returns."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, NoReturn

import msgspec

from trygon.clock import RealClock
from trygon.engine.code_snapshot import install_snapshot
from trygon.engine.environment import changes_for
from trygon.engine.platform import Platform
from trygon.observability.log_file import note_written, use_log_file
from trygon.spec.application import CodeLocation
from trygon.spec.launch import HelperLaunch, ReplicaLaunch

__all__ = ["ChildPlan", "apply_code", "apply_helper_code", "redirect_output", "run_child"]


class ChildPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a child stands beside its supervisor."""

    #: Shown in process listings.
    name: str
    #: stdout and stderr are appended to it; empty leaves them alone.
    log_path: str
    #: Open descriptors that the child may have, besides 0, 1 and 2.
    keep_fds: tuple[int, ...] = ()
    parent_pid: int
    #: Read end of the supervisor's lifeline pipe.
    lifeline_fd: int
    #: True for what can be replaced most easily when memory runs out.
    dies_first: bool = False


def run_child(plan: ChildPlan, platform: Platform, main: Callable[[], None]) -> NoReturn:
    """Become the child that `plan` describes, run `main`, and end the process with its outcome.

    The caller has just forked, with all signals blocked, and has no thread.
    """
    code = 1
    try:
        _settle(plan, platform)
        main()
        code = 0
    except SystemExit as stop:
        code = _exit_code(stop)
    except BaseException:  # noqa: BLE001 - the boundary of a process: the log is the last one to tell
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _settle(plan: ChildPlan, platform: Platform) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
    os.setsid()
    redirect_output(plan.log_path)
    _close_other_fds({plan.lifeline_fd, *plan.keep_fds})
    platform.die_with_parent(plan.parent_pid, plan.lifeline_fd)
    platform.name_process(plan.name)
    if plan.dies_first:
        platform.die_first()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    faulthandler.enable()
    gc.enable()


def redirect_output(log_path: str) -> None:
    """Send stdout and stderr to a file, line by line; readers tail it, and no reader's death blocks a print."""
    if not log_path:
        return
    use_log_file(log_path, RealClock().monotonic)
    sys.stdout = _line_writer(1)
    sys.stderr = _line_writer(2)


class _LossyFile(io.FileIO):
    """A log that loses lines when its disk is full, rather than fail the `print` of a request."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data) or 0
        except OSError:
            return len(data)
        note_written(self.fileno(), written)
        return written


def _line_writer(fd: int) -> io.TextIOWrapper:
    raw = _LossyFile(fd, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def apply_code(launch: ReplicaLaunch, environ: MutableMapping[str, str]) -> None:
    """Give this process the environment, the working directory and the import path of its replica."""
    _settle_environment(
        changes_for(launch, environ), environ, launch.options.working_dir or launch.code.working_dir
    )
    own = launch.options.module_path
    _settle_code(launch.code, launch.snapshot_path)
    sys.path[:] = [*own, *(path for path in sys.path if path not in own)]
    if launch.own_snapshot_path:
        install_snapshot(launch.own_snapshot_path)


def apply_helper_code(launch: HelperLaunch, environ: MutableMapping[str, str]) -> None:
    """Give this process the environment, the working directory and the import path of an application."""
    _settle_environment(dict(launch.code.env_vars), environ, launch.code.working_dir)
    _settle_code(launch.code, launch.snapshot_path)


def _settle_environment(
    changes: dict[str, str], environ: MutableMapping[str, str], working_dir: str | None
) -> None:
    environ.update(changes)
    if "TZ" in changes:
        time.tzset()
    if working_dir:
        os.chdir(working_dir)


def _settle_code(code: CodeLocation, snapshot_path: str) -> None:
    sys.path[:0] = [path for path in code.sys_path if path not in sys.path]
    if snapshot_path:
        install_snapshot(snapshot_path)


def _close_other_fds(keep: set[int]) -> None:
    """Close everything inherited: a copy of another slot's socket would keep it open for ever."""
    low = 3
    for fd in sorted(fd for fd in keep if fd > 2):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(low, _max_fd()))


def _max_fd() -> int:
    limit = os.sysconf("SC_OPEN_MAX")
    return limit if limit > 0 else 65536


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)  # noqa: T201 - as the interpreter itself does
    return 1
