"""What a process needs to make calls: a loop with a router on it, and who is calling.

A replica has one on its own loop, a script or notebook one on a background thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from trygon.dataplane.lines import Line
from trygon.dataplane.router import Router
from trygon.errors import InstanceError

__all__ = ["Runtime", "Waits", "current_runtime", "set_connector", "set_default_runtime", "use_runtime"]


class Waits(threading.local):
    """What each calling thread does with its responses."""

    #: Whether it blocks for each answer, as a script does, so that its calls may go over a line of their own.
    is_blocking = False
    #: The line of its last call.
    line: Line | None = None


class Runtime:
    """A router, the loop it lives on, and the application and revision that calls are made for."""

    __slots__ = (
        "__weakref__",
        "_tasks",
        "_thread",
        "app_name",
        "is_alive",
        "loop",
        "revision",
        "router",
        "waits",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        router: Router,
        *,
        app_name: str | None = None,
        revision: int | None = None,
    ) -> None:
        """Make a runtime for the loop that the calling thread runs."""
        self.loop = loop
        self.router = router
        #: The application of the replica that calls; None in a script.
        self.app_name = app_name
        #: Siblings of this revision are preferred, so that a new parent never calls an old child.
        self.revision = revision
        #: False once its loop is of no use: the instance ended, or this process is a fork of the one that made it.
        self.is_alive = True
        self.waits = Waits()
        self._thread = threading.get_ident()
        _runtimes.add(self)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the loop's thread."""
        return threading.get_ident() == self._thread

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Run `function` on the loop's thread: now if this is it.

        Raises:
            InstanceError: The loop is closed.
        """
        if threading.get_ident() == self._thread:
            function(*args)
            return
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError as error:
            raise InstanceError("the instance that this handle belongs to was shut down") from error

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run `coroutine` as a task of this runtime; on the loop's thread."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()


def _end_all_in_child() -> None:
    for runtime in _runtimes:
        runtime.is_alive = False


os.register_at_fork(after_in_child=_end_all_in_child)

_default: Runtime | None = None
_connect: Callable[[], Runtime | None] | None = None
_current: ContextVar[Runtime | None] = ContextVar("trygon_runtime", default=None)


def set_default_runtime(runtime: Runtime | None) -> None:
    """Set the runtime of this process, for code that no replica owns."""
    global _default
    _default = runtime


def set_connector(connect: Callable[[], Runtime | None]) -> None:
    """Set what finds a running instance for a process that has no runtime, or a dead one."""
    global _connect
    _connect = connect


def use_runtime(runtime: Runtime) -> None:
    """Make `runtime` the one that code started from this context uses (replicas within one process)."""
    _current.set(runtime)


def current_runtime() -> Runtime:
    """Return the runtime for the calling code.

    Raises:
        InstanceError: This process is connected to no instance.
    """
    runtime = _current.get() or _default
    if (runtime is None or not runtime.is_alive) and _connect is not None:
        runtime = _connect()
    if runtime is None or not runtime.is_alive:
        raise InstanceError(
            "this process is connected to no instance: call serve.run(app) first, or serve.status() to join "
            "the one that runs"
        )
    return runtime
