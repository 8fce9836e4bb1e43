"""The guardian: the supervisor's parent, which outlives it only to leave nothing behind.

When the supervisor is killed, every process it started, and every process those started,
becomes a child of the guardian, and is ended. When the guardian is killed, the supervisor sees
the end of its pipe and shuts down. So one violent death leaves no orphan, wherever it strikes.

A supervisor that is stopped (SIGSTOP) is let go on after a while: requests need it only when a process has died,
so killing it, which would end the instance, mends less than it breaks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from trygon.engine.family import end_strays
from trygon.engine.platform import Platform

__all__ = ["split"]

#: As long as the supervisor leaves a controller or an ingress that is stopped.
_STOPPED_AFTER_S = 5

logger = logging.getLogger("trygon.supervisor")


def split(platform: Platform, close_fds: tuple[int, ...], clean: Callable[[], None]) -> int:
    """Fork; return in the child, which becomes the supervisor, and never in the guardian.

    Args:
        platform: The kernel's services.
        close_fds: Descriptors that are the supervisor's alone.
        clean: Called by the guardian when nothing of the instance is left.

    Returns:
        Read end of a pipe that ends when the guardian does.
    """
    platform.become_subreaper()
    read_end, write_end = os.pipe()
    # Until the handlers stand, a signal would end only one of the two.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    pid = os.fork()
    if pid:
        os.close(read_end)
        for fd in close_fds:
            os.close(fd)
        _guard(pid, platform, clean)
    os.close(write_end)
    return read_end


def _guard(supervisor: int, platform: Platform, clean: Callable[[], None]) -> NoReturn:
    def forward(number: int, _: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, number)

    def let_go_on(*_: Any) -> None:
        logger.warning("the supervisor has been stopped for %d s and is let go on", _STOPPED_AFTER_S)
        forward(signal.SIGCONT, None)

    platform.name_process("trygon-guardian")
    signal.signal(signal.SIGALRM, let_go_on)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    # A terminal that closes ends its programs; this one ends when its supervisor does.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    status = 1
    while True:
        # The kernel tells of stops and of their ends as it tells of deaths; a debugger's stops are none.
        pid, ended = os.waitpid(-1, os.WUNTRACED | os.WCONTINUED)
        if pid != supervisor:
            continue
        if os.WIFSTOPPED(ended) or os.WIFCONTINUED(ended):
            signal.alarm(_STOPPED_AFTER_S if os.WIFSTOPPED(ended) else 0)
            continue
        status = ended
        break
    signal.alarm(0)
    end_strays(platform)
    clean()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)
