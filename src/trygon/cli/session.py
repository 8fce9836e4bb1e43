"""One `trygon run`: starts or joins an instance, builds, deploys, reloads, and ends what it started.

The main thread only takes events from a queue. Whatever waits (for the instance, the build, the
deployment, the files) does so on a thread of its own and reports with an event; so do signals.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trygon.cli.opening import Opening, RunOptions
from trygon.cli.report import Report
from trygon.cli.work import Outcome, PendingBuild, Work
from trygon.errors import InstanceError, TrygonError
from trygon.processes.builder import Builder
from trygon.spec.application import ApplicationSpec
from trygon.spec.status import ApplicationStatusOverview

if TYPE_CHECKING:
    from trygon.cli.watch import SourceWatcher
    from trygon.client.instance import Instance
    from trygon.client.log_tail import LogTail

__all__ = ["Session"]

#: Beyond the grace: the time of the processes to go, after which the end is forced.
_END_SLACK_S = 3.0
#: What a signal may take longer to this process than to another of its group.
_SIGNAL_S = 0.1
#: Between two looks at the clock while a status line counts seconds.
_TICK_S = 0.2


# ---- events


class _Connected(msgspec.Struct, frozen=True):
    pass


class _ConnectFailed(msgspec.Struct, frozen=True):
    error: str


class _Built(msgspec.Struct, frozen=True):
    attempt: int
    result: Outcome


class _Preparing(msgspec.Struct, frozen=True):
    attempt: int
    text: str


class _Progress(msgspec.Struct, frozen=True):
    attempt: int
    status: ApplicationStatusOverview


class _Running(msgspec.Struct, frozen=True):
    attempt: int


class _DeployFailed(msgspec.Struct, frozen=True):
    attempt: int
    error: str


class _SourcesChanged(msgspec.Struct, frozen=True):
    paths: list[str]


class _InstanceGone(msgspec.Struct, frozen=True):
    pass


class _Ended(msgspec.Struct, frozen=True):
    pass


class Session:
    """Serves applications from a terminal.

    Args:
        opening: The instance, which may still be starting.
        work: What to build.
        options: How to run it.
        report: Tells about it.
        events: Numbers of signals arrive here, and the session's own events.
    """

    def __init__(
        self,
        opening: Opening,
        work: Work,
        options: RunOptions,
        report: Report,
        events: queue.SimpleQueue[Any],
    ) -> None:
        self._opening = opening
        self._launched = opening.launched
        self._work = work
        self._options = options
        self._report = report
        self._events = events
        #: Set by the thread that connects.
        self._instance: Instance | None = None
        self._connector: threading.Thread | None = None
        self._builder: Builder | None = None
        self._build: PendingBuild | None = None
        self._tail: LogTail | None = None
        self._watcher: SourceWatcher | None = None
        #: Counts builds; events of older ones are stale.
        self._attempt = 0
        #: The specifications of this attempt, once it is built.
        self._specs: tuple[ApplicationSpec, ...] | None = None
        #: Whether some attempt has been serving.
        self._has_served = False
        #: The attempt that was deployed last; 0 before.
        self._deployed = 0
        #: Applications that this command deployed.
        self._names: tuple[str, ...] = ()
        #: Those of them that the joined instance had before.
        self._were_there: frozenset[str] = frozenset()
        #: The signal that asked for the end; 0 before.
        self._stop_number = 0

    def run(self, *, shows_logs: bool) -> int:
        """Serve until the end; return the exit code."""
        try:
            self._start(shows_logs=shows_logs)
            code = self._loop()
        except InstanceError as error:
            self._report.failed(str(error))
            code = 1
        finally:
            leaves = not self._options.blocking and self._has_served and not self._stop_number
            self._close(leaves=leaves)
        return code

    # ---- start

    def _start(self, *, shows_logs: bool) -> None:
        """Begin everything that takes time, the slowest first."""
        # Imported while the supervisor starts, and before the template is forked, which needs much of it too.
        import trygon.client.instance  # noqa: F401

        self._builder = Builder()
        self._begin_build()
        self._connector = self._spawn(self._connect)
        if shows_logs:
            from trygon.client.log_tail import LogTail

            # Made before the instance's processes write: what is there is an earlier instance's.
            self._tail = LogTail(Path(self._opening.log_dir), self._report.logs.take)
            self._tail.start()
        if self._options.reload:
            self._watch()

    def _connect(self) -> None:
        from trygon.client.instance import Instance

        record = self._opening.record
        try:
            if self._launched is not None:
                record = self._launched.wait_ready()
            assert record is not None
            self._instance = Instance(record, launched=self._launched)
            self._events.put(_Connected())
        except Exception as error:  # noqa: BLE001 - the boundary of a thread: whatever it is, it is told
            self._events.put(_ConnectFailed(_told(error)))

    def _watch(self) -> None:
        from trygon.cli.watch import SourceWatcher

        self._watcher = SourceWatcher(
            self._work.folders, lambda paths: self._events.put(_SourcesChanged(paths))
        )
        self._watcher.start()

    # ---- events

    def _loop(self) -> int:
        while True:
            event = self._next_event()
            code = self._take(event) if event is not None else None
            if code is not None:
                return code
            self._report.tick()

    def _next_event(self) -> Any:
        try:
            return self._events.get(timeout=_TICK_S if self._report.is_counting else None)
        except queue.Empty:
            return None

    def _take(self, event: Any) -> int | None:
        """Act on an event; return an exit code to end with."""
        match event:
            case int():
                return self._stop(event)
            case _Connected():
                self._spawn(self._wait_gone)
                self._deploy()
            case _ConnectFailed():
                self._report.failed(event.error)
                return 1
            case _InstanceGone():
                return self._gone()
            case _Built() if event.attempt == self._attempt:
                return self._take_build(event.result)
            case _Preparing() if event.attempt == self._attempt:
                self._report.preparing(event.text)
            case _Progress() if event.attempt == self._attempt:
                self._report.progress(event.status)
            case _Running() if event.attempt == self._attempt:
                return self._serving()
            case _DeployFailed() if event.attempt == self._attempt:
                return self._not_deployed(event.error)
            case _SourcesChanged():
                self._reload(event.paths)
            case _:
                # Of an attempt that a later one has replaced.
                pass
        return None

    # ---- build and deploy

    def _begin_build(self) -> None:
        assert self._builder is not None
        if self._build is not None:
            self._build.cancel()
        self._attempt += 1
        self._specs = None
        attempt = self._attempt
        build = self._work.begin(self._builder, lambda text: self._events.put(_Preparing(attempt, text)))
        self._build = build

        def wait() -> None:
            result = build.wait()
            if result.crashed:
                # The signal that ended it was most likely sent to this program too, and means more.
                threading.Event().wait(_SIGNAL_S)
            self._events.put(_Built(attempt, result))

        self._spawn(wait)

    def _take_build(self, result: Outcome) -> int | None:
        self._build = None
        if self._watcher is not None:
            self._watcher.add_files(result.files)
        self._report.warn(result.warnings)
        if result.error:
            self._report.build_failed(result, is_waiting=self._options.reload, is_serving=self._has_served)
            return None if self._options.reload else 1
        self._specs = result.specs
        if not self._options.reload and self._builder is not None:
            self._builder.close()
            self._builder = None
        self._deploy()
        return None

    def _deploy(self) -> None:
        """Deploy what is built, when there is an instance to deploy it to."""
        instance, specs, attempt = self._instance, self._specs, self._attempt
        if instance is None or specs is None or self._deployed == attempt:
            return
        self._deployed = attempt
        self._report.starting(specs)
        names = tuple(spec.name for spec in specs)
        removed = tuple(name for name in self._names if name not in names)
        self._names = names

        def deploy() -> None:
            try:
                if self._launched is None and not self._has_served:
                    self._were_there = frozenset(instance.status().applications)
                revisions = self._work.deploy(instance, specs, removed)
                instance.wait_running(
                    revisions, on_progress=lambda _, status: self._events.put(_Progress(attempt, status))
                )
            except Exception as error:  # noqa: BLE001 - the boundary of a thread: whatever it is, it is told
                self._events.put(_DeployFailed(attempt, _told(error)))
            else:
                self._events.put(_Running(attempt))

        self._spawn(deploy)

    def _serving(self) -> int | None:
        assert self._instance is not None
        assert self._specs is not None
        self._report.serving(
            self._instance.record, self._specs, is_reload=self._has_served, is_left=not self._options.blocking
        )
        self._has_served = True
        return None if self._options.blocking else 0

    def _not_deployed(self, error: str) -> int | None:
        if self._instance is not None and self._instance.is_gone:
            # Why it is gone says more than that the deployment did not get through.
            return None
        self._report.deploy_failed(error, is_waiting=self._options.reload)
        return None if self._options.reload else 1

    def _reload(self, paths: list[str]) -> None:
        self._report.changed(paths)
        for path in paths:
            _forget_byte_code(path)
        self._begin_build()

    # ---- the end

    def _wait_gone(self) -> None:
        assert self._instance is not None
        self._instance.wait_gone()
        self._events.put(_InstanceGone())

    def _gone(self) -> int:
        """The instance ended, and this command did not ask for it."""
        code = None
        if self._launched is not None and self._launched.wait_ended(_END_SLACK_S):
            code = self._launched.process.returncode
        assert self._instance is not None
        self._report.gone(self._instance.record, is_orderly=code == 0)
        return 0 if code == 0 else 1

    def _stop(self, number: int) -> int:
        """End on a signal; a second one forces."""
        self._stop_number = number
        self._report.stopping()
        ender = threading.Thread(target=self._end, name="trygon-end", daemon=True)
        ender.start()
        while True:
            match self._events.get():
                case _Ended():
                    return 0 if self._has_served else 128 + number
                case int():
                    self._report.forcing()
                    self._force()
                    return 128 + number
                case _:
                    pass

    def _end(self) -> None:
        try:
            self._end_work()
        finally:
            self._events.put(_Ended())

    def _end_work(self) -> None:
        """End what this command started: its instance, or its application in an instance that it joined."""
        if not self._options.blocking and self._connector is not None:
            # A detached instance has no lifeline to let go of: it has to be told.
            self._connector.join(_END_SLACK_S)
        instance, grace_s = self._instance, self._options.grace_s
        if self._launched is None:
            # One that was there before, and that this command has not replaced, is none of its business.
            for name in self._names:
                is_ours = self._has_served or name not in self._were_there
                if instance is not None and is_ours and not instance.is_gone:
                    with contextlib.suppress(TrygonError, TimeoutError):
                        instance.delete(name)
            return
        if instance is not None:
            instance.shutdown(grace_s=grace_s, timeout_s=grace_s + _END_SLACK_S)
            return
        self._launched.let_go()
        if not self._launched.wait_ended(_END_SLACK_S):
            self._force()

    def _force(self) -> None:
        """Leave nothing of this command's own instance, now."""
        if self._launched is None:
            return
        # The guardian ends every process that the supervisor leaves behind.
        pids = [self._instance.record.supervisor_pid] if self._instance is not None else []
        self._launched.let_go()
        for pid in pids or [self._launched.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._launched.wait_ended(_END_SLACK_S)

    def _close(self, *, leaves: bool) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        if self._builder is not None:
            self._builder.close()
        if not leaves and not self._stop_number:
            self._end_work()
        if self._instance is not None:
            self._instance.close()
        if self._launched is not None and not leaves:
            self._launched.let_go()
            self._launched.wait_ended(_END_SLACK_S)
        if self._tail is not None:
            self._tail.stop()
        self._report.close()

    @staticmethod
    def _spawn(target: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=target, name="trygon-run", daemon=True)
        thread.start()
        return thread


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, TrygonError) else f"{type(error).__name__}: {error}"


def _forget_byte_code(path: str) -> None:
    """Remove the cached byte code of a module: it counts as fresh when two saves fall into one second."""
    import importlib.util

    with contextlib.suppress(OSError, NotImplementedError):
        os.unlink(importlib.util.cache_from_source(path))
