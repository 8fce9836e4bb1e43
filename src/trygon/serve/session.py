"""The instance that this process is connected to, and the loop thread that its handles use."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from trygon.client.instance import Instance
from trygon.client.instances import choose, new_name, place
from trygon.client.launch import Launched, begin_launch
from trygon.client.log_tail import LogSource, LogTail
from trygon.client.snapshot import own_modules
from trygon.config import Settings, admin_options, make_private_dir, read_settings
from trygon.dataplane.process_metrics import ProcessMetrics, set_up_metrics
from trygon.dataplane.router import Router
from trygon.dataplane.runtime import Runtime, set_connector, set_default_runtime
from trygon.spec.application import CodeLocation
from trygon.spec.control import LoadReport, RouterTrouble
from trygon.spec.instance import InstanceConfig
from trygon.spec.routing import RoutingTable

__all__ = ["Session", "code_location", "connect", "connect_or_start", "current_session", "forget_session"]

T = TypeVar("T")

#: What an attached instance gets to end by itself when its program ends.
_EXIT_GRACE_S = 3.0
#: The controller sends the routing table at once; without it calls wait for it instead.
_FIRST_TABLE_S = 5.0


class Session:
    """A connection to an instance, with a router for this process's handles on a thread of its own."""

    def __init__(
        self, launched: Launched | None, make: Callable[[asyncio.AbstractEventLoop], Instance]
    ) -> None:
        self._thread = _LoopThread()
        self._metrics: ProcessMetrics | None = None
        try:
            self.instance = make(self._thread.loop)
            self.runtime: Runtime = self.instance.submit(self._make_runtime()).result()
        except BaseException:
            self._thread.stop()
            raise
        self.launched = launched
        self._tail: LogTail | None = None

    def show_logs(self) -> None:
        """Print what replicas print and log to this program's standard error, until `close`."""
        self._tail = LogTail(Path(self.instance.record.log_dir), _show)
        self._tail.start()

    async def _make_runtime(self) -> Runtime:
        settings = read_settings()
        set_up_metrics(
            has_stages=settings.metrics == "on", latency_buckets_ms=settings.own_latency_buckets_ms
        )
        router = Router(self._thread.loop)
        first: asyncio.Future[None] = self._thread.loop.create_future()

        def apply(table: RoutingTable) -> None:
            router.apply(table)
            if not first.done():
                first.set_result(None)

        link = self.instance.link
        router.report_load(lambda loads: link.send(LoadReport(loads=loads)))
        router.troubles.send = lambda app, name, number, why: link.send(
            RouterTrouble(app_name=app, deployment=name, num_requests=number, error=why)
        )
        self.instance.on_table.append(apply)
        table = self.instance.link.table
        if table is not None:
            apply(table)
        # Else a program that joins would be told that the application it asks for does not exist.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_TABLE_S):
                await first
        runtime = Runtime(self._thread.loop, router)
        if settings.metrics != "off":
            address = self.instance.record.controller_address
            name = f"program-{os.getpid()}"
            self._metrics = ProcessMetrics(router, address, role="program", caller=name)
            self._metrics.start()

        def end() -> None:
            # Calls would else wait for replicas that will never come back.
            runtime.is_alive = False
            runtime.spawn(router.close())

        self.instance.on_gone.append(end)
        return runtime

    async def _end_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()

    def close(self) -> None:
        """Drop the connection; an attached instance that this process started ends."""
        self.runtime.is_alive = False
        if self._tail is not None:
            self._tail.stop()
            self._tail = None
        if self._thread.is_alive:
            with contextlib.suppress(Exception):
                self.instance.submit(self._end_metrics()).result(_EXIT_GRACE_S)
            with contextlib.suppress(Exception):
                self.instance.submit(self.runtime.router.close()).result(_EXIT_GRACE_S)
            self.instance.close()
            self._thread.stop()
        if self.launched is not None:
            self.launched.let_go()

    def shutdown(self) -> None:
        """End the instance and everything in it."""
        try:
            self.instance.shutdown()
        finally:
            self.close()


def _show(source: LogSource, lines: list[str]) -> None:
    """Show a replica's lines but for the access log, which would drown a script that makes many calls."""
    if source.kind == "replica":
        text = "".join(f"({source.name} {source.id}) {line}\n" for line in lines if " -- CALL " not in line)
        with contextlib.suppress(OSError, ValueError):  # closed, or gone at exit
            sys.stderr.write(text)


class _LoopThread:
    def __init__(self) -> None:
        # uvloop is loaded by the first connection, not by the import of trygon.serve.
        import uvloop

        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="trygon-client", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


_session: Session | None = None
_lock = threading.RLock()


def current_session() -> Session | None:
    """Return the session of this process while its instance lives."""
    session = _session
    if session is not None and session.instance.is_gone:
        forget_session()
        return None
    return session


def _keep(session: Session) -> Session:
    global _session
    _session = session
    set_default_runtime(session.runtime)
    return session


def forget_session() -> None:
    """Close the session of this process, if there is one."""
    global _session
    with _lock:
        session, _session = _session, None
        set_default_runtime(None)
        if session is not None:
            session.close()


def connect(settings: Settings | None = None) -> Session | None:
    """Return the session of this process, joining a running instance if there is one to join."""
    with _lock:
        session = current_session()
        if session is not None:
            return session
        settings = settings or read_settings()
        record = choose(Path(settings.runtime_dir), name=settings.instance)
        if record is None:
            return None
        return _keep(Session(None, lambda loop: Instance(record, loop=loop)))


def connect_or_start(
    options: InstanceConfig | None = None, prepare: Callable[[], T] | None = None
) -> tuple[Session, T | None, bool]:
    """Join an instance or start one; `prepare` runs while a new one starts.

    Args:
        options: How to start one; name and directories are filled in here.
        prepare: Work that needs no instance, such as building an application.

    Returns:
        The session, what `prepare` returned, and whether an instance was started.

    Raises:
        InstanceError: Several run and none is named, or none could be started.
    """
    with _lock:
        settings = read_settings()
        session = connect(settings)
        if session is not None:
            return session, prepare() if prepare else None, False
        make_private_dir(Path(settings.home), what="TRYGON_HOME")
        make_private_dir(Path(settings.runtime_dir), what="TRYGON_RUNTIME_DIR")
        config = _config(options, settings)
        launched = begin_launch(config)
        try:
            prepared = prepare() if prepare else None
            record = launched.wait_ready()
            session = Session(launched, lambda loop: Instance(record, launched=launched, loop=loop))
        except BaseException:
            launched.let_go()
            launched.wait_ended(_EXIT_GRACE_S)
            raise
        if settings.log_to_stderr:
            session.show_logs()
        return _keep(session), prepared, True


def _config(options: InstanceConfig | None, settings: Settings) -> InstanceConfig:
    if options is None:
        options = InstanceConfig(
            name="",
            runtime_dir="",
            state_dir="",
            host=settings.default_http_host,
            http_options={"session_id_header": settings.session_id_header},
        )
    options = msgspec.structs.replace(
        options,
        num_ingress=options.num_ingress and settings.num_ingress,
        admin=admin_options(settings, attached=options.attached),
        runtime_dir=str(settings.runtime_dir),
        state_dir=str(settings.home / "instances"),
    )
    return place(options, settings.instance or new_name())


def code_location() -> CodeLocation:
    """Return how a replica finds the modules that this process can import, and those of the application."""
    working_dir = os.getcwd()
    paths = [os.path.abspath(path) if path else working_dir for path in sys.path]
    return CodeLocation(sys_path=tuple(dict.fromkeys(paths)), working_dir=working_dir, modules=own_modules())


def _forget_in_child() -> None:
    """A forked child has neither the thread nor a right to the connection."""
    global _session
    _session = None
    set_default_runtime(None)


def _end_at_exit() -> None:
    session = _session
    if session is None:
        return
    launched = session.launched
    forget_session()
    if launched is not None:
        launched.wait_ended(_EXIT_GRACE_S)


def _connected_runtime() -> Runtime | None:
    """Join the running instance for a handle that finds itself without one, as in a forked child."""
    session = connect()
    return session.runtime if session is not None else None


set_connector(_connected_runtime)
os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(_end_at_exit)
