"""A running instance as a program talks to it: plain calls, from any thread, interruptible by Ctrl-C."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trygon.client.instances import choose, find, new_name, place
from trygon.client.launch import Launched, begin_launch
from trygon.client.link import ControlLink, Notice, Request
from trygon.client.rundir import RunDir
from trygon.client.startup import forget_startup
from trygon.errors import InstanceError
from trygon.spec.application import ApplicationSpec
from trygon.spec.control import (
    ApplicationChanged,
    DeleteApplication,
    DeployApplications,
    Explain,
    GetGoal,
    GetHistory,
    GetStatus,
    Hello,
    InstanceInfo,
    Shutdown,
    UndoApplication,
    WaitApplications,
    WaitDeleted,
)
from trygon.spec.explanation import Explanation
from trygon.spec.history import RevisionRecord
from trygon.spec.instance import InstanceConfig, InstanceRecord
from trygon.spec.plan import InstanceGoal
from trygon.spec.routing import HttpTimeouts, RoutingTable
from trygon.spec.status import ApplicationStatusOverview, InstanceStatus

__all__ = ["Instance", "Progress", "connect_or_start"]

_T = TypeVar("_T")

#: The controller answers these from memory; longer means that it is being restarted.
_ANSWER_S = 30.0
#: A controller that is asked to end its instance and does not answer at all for so long is passed over. Longer
#: than the supervisor takes to replace one that is stopped, which then drains in good order.
_SHUTDOWN_ANSWER_S = 10.0
#: Time for the processes to go after the replicas have drained.
_LAST_STEPS_S = 3.0
#: Time for the supervisor to take a signal, on a busy machine too.
_ASK_AGAIN_S = 0.5

Progress = Callable[[str, ApplicationStatusOverview], None]


def connect_or_start(
    config: InstanceConfig, *, name: str | None = None, loop: asyncio.AbstractEventLoop | None = None
) -> Instance:
    """Join an instance, or start one.

    Args:
        config: How to start one if none is found; its two directories are the roots below which each
            instance has its own. An empty name in it gets a random one.
        name: The instance to join or to start; None joins the user's single running one.
        loop: A running loop of another thread for the connection; None makes one.

    Raises:
        InstanceError: Several run and none is named, or none could be started.
    """
    root = Path(config.runtime_dir)
    record = choose(root, name=name)
    if record is not None:
        return Instance(record, loop=loop)
    placed = place(config, name or config.name or new_name())
    launched = begin_launch(placed)
    try:
        record = launched.wait_ready()
    except InstanceError:
        # Somebody else may have started it in the same moment.
        other = find(root, placed.name)
        if other is None:
            raise
        return Instance(other, loop=loop)
    except BaseException:
        launched.let_go()
        raise
    try:
        return Instance(record, launched=launched, loop=loop)
    except BaseException:
        launched.let_go()
        raise


class Instance:
    """A connection to a running instance.

    Args:
        record: The instance.
        launched: Its process, when this program started it.
        loop: A running loop of another thread; None makes a thread with one.
    """

    def __init__(
        self,
        record: InstanceRecord,
        *,
        launched: Launched | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.record = record
        self.launched = launched
        #: Called on the loop's thread with each newer routing table.
        self.on_table: list[Callable[[RoutingTable], None]] = []
        #: Called on the loop's thread when the instance has ended.
        self.on_gone: list[Callable[[], None]] = []
        self._progress: dict[str, list[Progress]] = {}
        self._gone = threading.Event()
        self._closed = False
        self._thread = None if loop is not None else _LoopThread()
        self.loop = loop if loop is not None else self._thread_loop()
        self.link = ControlLink(
            record.controller_address,
            Hello(role="client", pid=os.getpid()),
            on_table=self._take_table,
            on_notice=self._take_notice,
            on_gone=self._end,
        )
        try:
            self.submit(self.link.open()).result()
        except BaseException:
            self._stop_thread()
            raise

    def _end(self) -> None:
        self._gone.set()
        for callback in self.on_gone:
            callback()

    @property
    def is_gone(self) -> bool:
        """True once the instance has ended."""
        return self._gone.is_set()

    def wait_gone(self, timeout_s: float | None = None) -> bool:
        """Wait until the instance has ended; False when the time is over first."""
        return self._gone.wait(timeout_s)

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Run a coroutine on the connection's loop.

        Raises:
            InstanceError: The connection was closed.
        """
        if self._closed:
            coroutine.close()
            raise InstanceError(f"the connection to instance {self.record.name!r} was closed; connect again")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def deploy(
        self, applications: tuple[ApplicationSpec, ...], *, origin: str = "", declarative: bool = False
    ) -> dict[str, int]:
        """Deploy applications together; return the revision of each, which is then being started.

        Args:
            applications: What to deploy.
            origin: Who asks, for the history.
            declarative: Keep the replicas of deployments whose code, arguments, resources and environment are
                what they were, as for configuration files; otherwise all get new replicas.

        Raises:
            DeployError: They cannot be deployed; nothing was changed.
        """
        answer = self._ask(
            DeployApplications(applications=applications, origin=origin, declarative=declarative)
        )
        return msgspec.convert(answer, dict[str, int])

    def undo(self, name: str, *, to: int | None = None) -> dict[str, int]:
        """Deploy what an earlier revision was, code included; return the new revision, which is being started.

        Args:
            name: The application.
            to: Number of the earlier revision; None takes the newest other one that was complete.

        Raises:
            DeployError: There is no such revision, or it cannot be deployed; nothing was changed.
        """
        answer = self._ask(UndoApplication(name=name, to=to))
        return msgspec.convert(answer, dict[str, int])

    def history(self, name: str) -> list[RevisionRecord]:
        """Return the revisions of an application that are kept, newest first.

        Raises:
            DeployError: There is no such application.
        """
        return msgspec.convert(self._ask(GetHistory(name=name), timeout_s=_ANSWER_S), list[RevisionRecord])

    def explain(self, name: str) -> Explanation:
        """Return why an application, an "application/deployment" or a replica is as it is.

        Raises:
            ServeError: Nothing has that name.
        """
        return msgspec.convert(self._ask(Explain(name=name), timeout_s=_ANSWER_S), Explanation)

    def apply(
        self,
        applications: tuple[ApplicationSpec, ...],
        *,
        removed: tuple[str, ...] = (),
        origin: str = "",
        target_capacity: float | msgspec.UnsetType | None = msgspec.UNSET,
        http_timeouts: HttpTimeouts | None = None,
    ) -> dict[str, int]:
        """Make what a configuration file says so, in one step: what did not change keeps its replicas.

        Args:
            applications: What is wanted.
            removed: Applications that are deleted in the same step.
            origin: Who asks, for the history.
            target_capacity: Percentage of their replicas that all applications of files get from now on; unset
                leaves it as it is.
            http_timeouts: For the whole instance from now on; None leaves them as they are.

        Returns:
            The revision of each of `applications`.

        Raises:
            DeployError: It cannot be done; nothing was changed.
        """
        request = DeployApplications(
            applications=applications,
            declarative=True,
            removed=removed,
            origin=origin,
            target_capacity=target_capacity,
            http_timeouts=http_timeouts,
        )
        return msgspec.convert(self._ask(request), dict[str, int])

    def goal(self) -> InstanceGoal:
        """Return what is wanted of every application, and what the machine has."""
        return msgspec.convert(self._ask(GetGoal(), timeout_s=_ANSWER_S), InstanceGoal)

    def wait_running(
        self,
        revisions: dict[str, int],
        *,
        timeout_s: float | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """Wait until these revisions serve.

        Args:
            revisions: What `deploy` returned.
            timeout_s: Give up after this; the deployment goes on.
            on_progress: Called with (application, status) at each change, on the loop's thread.

        Raises:
            DeployError: One of them failed.
            TimeoutError: The time was over.
        """
        for name in revisions if on_progress is not None else ():
            self._progress.setdefault(name, []).append(on_progress)  # type: ignore[arg-type]
        try:
            self._ask(WaitApplications(revisions=revisions), timeout_s=timeout_s)
        finally:
            for name in revisions if on_progress is not None else ():
                self._progress[name].remove(on_progress)  # type: ignore[arg-type]

    def delete(self, name: str, *, wait: bool = True, timeout_s: float = 60.0) -> None:
        """Delete an application and wait until nothing is left of it; unknown names are accepted.

        Raises:
            TimeoutError: Its replicas were still finishing; the deletion goes on.
        """
        self._ask(DeleteApplication(name=name), timeout_s=_ANSWER_S)
        if wait:
            self._ask(WaitDeleted(name=name), timeout_s=timeout_s)

    def status(self, *, timeout_s: float = _ANSWER_S) -> InstanceStatus:
        """Return everything that runs.

        Raises:
            TimeoutError: The controller did not answer in time.
        """
        answer = self._ask(GetStatus(), timeout_s=timeout_s)
        return msgspec.convert(answer, InstanceStatus)

    def shutdown(self, *, grace_s: float | None = None, timeout_s: float = 30.0) -> None:
        """Delete all applications and end the instance; nothing is left of it on return.

        Args:
            grace_s: Replicas still busy after this are killed; None keeps to each deployment's own timeout.
            timeout_s: After this the end is forced.
        """
        if self._closed:
            return
        if not (self._end_orderly(grace_s, timeout_s) and self._wait_ended(_LAST_STEPS_S)):
            # The first asks again, the second forces. Sent at once, the two would arrive as one.
            for patience_s in (_ASK_AGAIN_S, _LAST_STEPS_S):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.record.pid, signal.SIGTERM)
                if self._wait_ended(patience_s):
                    break
        # Whoever ends an instance by its own wish starts the next one anew.
        forget_startup(Path(self.record.state_dir))
        self.close()

    def _end_orderly(self, grace_s: float | None, timeout_s: float) -> bool:
        """Let the controller end the instance; False when it does not answer, or not in time."""
        try:
            # Draining may take long, an answer may not: so the controller is asked for one first.
            self._ask(InstanceInfo(), timeout_s=min(timeout_s, _SHUTDOWN_ANSWER_S))
            self._ask(Shutdown(grace_s=grace_s), timeout_s=timeout_s)
        except TimeoutError:
            return False
        except InstanceError:
            # It went while it was asked; `_wait_ended` tells.
            return True
        return True

    def close(self) -> None:
        """Drop the connection; a detached instance runs on, an attached one ends with this program."""
        if self._closed:
            return
        if self.loop.is_running():
            with contextlib.suppress(concurrent.futures.CancelledError):
                self.submit(self.link.close()).result()
        self._closed = True
        self._stop_thread()

    def _ask(self, request: Request, *, timeout_s: float | None = None) -> Any:
        future = self.submit(self.link.call(request, timeout_s=timeout_s))
        try:
            return future.result()
        except BaseException:
            # Ctrl-C in this thread must also end the call on the loop.
            future.cancel()
            raise

    def _wait_ended(self, timeout_s: float) -> bool:
        if self.launched is not None:
            return self.launched.wait_ended(timeout_s)
        step_s = 0.01
        pause = threading.Event()
        for _ in range(int(timeout_s / step_s)):
            if not RunDir.is_alive(Path(self.record.runtime_dir)):
                return True
            pause.wait(step_s)
        return False

    def _take_table(self, table: RoutingTable) -> None:
        for callback in self.on_table:
            callback(table)

    def _take_notice(self, notice: Notice) -> None:
        if isinstance(notice, ApplicationChanged):
            for callback in list(self._progress.get(notice.name, ())):
                callback(notice.name, notice.status)

    def _thread_loop(self) -> asyncio.AbstractEventLoop:
        assert self._thread is not None
        return self._thread.loop

    def _stop_thread(self) -> None:
        if self._thread is not None:
            self._thread.stop()


class _LoopThread:
    """A daemon thread with an event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="trygon-client", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()
