"""A whole instance in the calling process, without HTTP: controller and replicas on threads.

The same controller, router, transport and replica code as everywhere else, so that what passes in
local testing mode passes outside; only processes are missing, and what only they can have.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import threading
import weakref
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import uvloop

from trygon.client.instance import Instance
from trygon.clock import RealClock
from trygon.control.controller import Controller
from trygon.control.launching import Launching
from trygon.control.server import ControlServer
from trygon.control.store import WantedState
from trygon.dataplane.router import Router
from trygon.dataplane.runtime import Runtime
from trygon.engine.inprocess import InProcessEngine
from trygon.engine.sockets import bind_control
from trygon.errors import InstanceError
from trygon.processes.helper import serve_helper
from trygon.processes.replica import serve_replica
from trygon.spec.application import ApplicationSpec
from trygon.spec.control import LoadReport, RouterTrouble
from trygon.spec.instance import InstanceRecord
from trygon.spec.launch import HelperLaunch, ReplicaLaunch

__all__ = ["InProcessInstance"]

T = TypeVar("T")

_STOP_TIMEOUT_S = 10.0


class InProcessInstance:
    """Starts with the first application, ends with `close`."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="trygon-")
        # A program that ends without `close` must not leave its sockets behind.
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="trygon-inprocess", daemon=True)
        self._thread.start()
        record = InstanceRecord(
            name="in-process",
            pid=os.getpid(),
            supervisor_pid=os.getpid(),
            host="",
            port=0,
            controller_address=os.path.join(self._folder, "controller.sock"),
            runtime_dir=self._folder,
            state_dir=self._folder,
            log_dir=self._folder,
        )
        self._engine = InProcessEngine(_run_replica, _run_helper)
        self._server = ControlServer()
        try:
            self._controller = self._call(self._start_controller(record))
            self._instance = Instance(record, loop=self.loop)
            self.runtime: Runtime = self._call(self._make_runtime())
        except BaseException:
            self._stop_thread()
            raise

    def deploy(self, specs: tuple[ApplicationSpec, ...]) -> None:
        """Deploy and wait until everything serves.

        Raises:
            DeployError: A constructor raised; the text has its traceback.
        """
        self._instance.wait_running(self._instance.deploy(specs))

    def delete(self, name: str) -> bool:
        """Delete an application; False if there is none of that name."""
        if name not in self._instance.status().applications:
            return False
        self._instance.delete(name)
        return True

    def close(self) -> None:
        """End every replica and the controller."""
        for name in self._instance.status().applications:
            self._instance.delete(name)
        self._call(self._stop())
        self._instance.close()
        self._stop_thread()

    # ----

    async def _start_controller(self, record: InstanceRecord) -> Controller:
        controller = Controller(
            engine=self._engine,
            server=self._server,
            store=_NoStore(),
            clock=RealClock(),
            record=record,
            launching=_InProcessLaunching(record),
            num_ingress=0,
        )
        await controller.start()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(record.controller_address)
        listener.listen()
        listener.setblocking(False)
        await self._server.start(listener)
        return controller

    async def _make_runtime(self) -> Runtime:
        router = Router(asyncio.get_running_loop())
        link = self._instance.link
        router.report_load(lambda loads: link.send(LoadReport(loads=loads)))
        router.troubles.send = lambda app, name, number, why: link.send(
            RouterTrouble(app_name=app, deployment=name, num_requests=number, error=why)
        )
        self._instance.on_table.append(router.apply)
        if self._instance.link.table is not None:
            router.apply(self._instance.link.table)
        return Runtime(asyncio.get_running_loop(), router)

    async def _stop(self) -> None:
        await self.runtime.router.close()
        await self._controller.close()
        await self._server.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(_STOP_TIMEOUT_S)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def _stop_thread(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_STOP_TIMEOUT_S)
        shutil.rmtree(self._folder, ignore_errors=True)


class _InProcessLaunching(Launching):
    """A thread has no log file of its own."""

    def explain_exit(self, launch: ReplicaLaunch, reason: str) -> str:
        return reason


class _NoStore:
    """Nothing outlives the process."""

    def load(self) -> WantedState:
        return WantedState()

    def save(self, state: WantedState, blobs: Mapping[str, bytes] | None = None) -> None:
        return

    def read_blob(self, digest: str) -> bytes:
        raise InstanceError(f"nothing is kept in local testing mode, {digest!r} neither; deploy it again")

    def clear(self) -> None:
        return


def _run_replica(launch: ReplicaLaunch, stop: threading.Event) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until(launch, stop))


def _run_helper(launch: HelperLaunch, stop: threading.Event) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_help_until(launch, stop))


async def _help_until(launch: HelperLaunch, stop: threading.Event) -> None:
    stopped = _stopped_future(stop, f"trygon-stop-helper-{launch.key}")
    # A thread that hangs is the program's own, and cannot be ended.
    await serve_helper(bind_control(launch.address), stopped, launch=launch, on_hung=lambda: None)


async def _serve_until(launch: ReplicaLaunch, stop: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    serving = loop.create_task(serve_replica(launch))
    stopped = _stopped_future(stop, f"trygon-stop-{launch.replica_id}")
    waited: list[asyncio.Future[None]] = [serving, stopped]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    if not serving.done():
        serving.cancel()
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()


def _stopped_future(stop: threading.Event, name: str) -> asyncio.Future[None]:
    """Return a future of the running loop that is done when `stop` is set."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def wait_stop() -> None:
        stop.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(_finish, stopped)

    # A daemon, which no interpreter waits for at its exit.
    threading.Thread(target=wait_stop, name=name, daemon=True).start()
    return stopped


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
