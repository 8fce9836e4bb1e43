"""A replica: loads its code, says that it is ready, serves until it is drained.

`main` is the whole life of a replica's process; `serve_replica` is the same on a loop of the caller's,
which is how the in-process engine runs replicas in threads.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import traceback
from typing import Any

import msgspec
import uvloop

from trygon.client.link import ControlLink, Notice
from trygon.clock import RealClock
from trygon.dataplane.asgi import Lifespan
from trygon.dataplane.concurrency import GradientLimit
from trygon.dataplane.context import request_context
from trygon.dataplane.models.multiplexed import replica_models
from trygon.dataplane.process_metrics import ProcessMetrics
from trygon.dataplane.replica import Replica
from trygon.dataplane.replica_context import ReplicaContext, ReplicaID, ReplicaRank, enter_replica
from trygon.dataplane.replica_metrics import ReplicaMetrics
from trygon.dataplane.router import Router
from trygon.dataplane.runtime import Runtime, set_default_runtime, use_runtime
from trygon.dataplane.user_callable import UserCallable
from trygon.graph.asgi import asgi_ingress_of
from trygon.graph.pickling import loads_definition
from trygon.observability.access_log import AccessLog
from trygon.observability.logs import Component, LogContext, LogOptions, set_up_logging
from trygon.observability.user_metrics import set_tag_source
from trygon.processes.metrics import metrics_level
from trygon.processes.routing_stats import RoutingStatsTeller
from trygon.processes.watchdog import Watchdog
from trygon.spec.control import (
    DrainReplica,
    Hello,
    LoadReport,
    Reconfigure,
    ReconfigureDone,
    ReplicaFailed,
    ReplicaReady,
    ReplicaStats,
    ReplicaUnhealthy,
    RouterTrouble,
)
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.routers import CUSTOM

__all__ = ["main", "serve_replica"]

logger = logging.getLogger("trygon.replica")

#: Checks in a row that must fail before a replica counts as unhealthy, as in Ray Serve.
UNHEALTHY_AFTER = 3
#: What a request still running at the end of the drain gets to see its cancellation.
CANCEL_GRACE_S = 0.2
#: The user's own numbers for autoscaling: how long giving them may take, and how often they are asked for at least.
_STATS_TIMEOUT_S = 10.0
_LONGEST_STATS_PAUSE_S = 1.0
#: Access log lines are written together, at most this late.
ACCESS_LOG_PAUSE_S = 0.1


def main(launch: ReplicaLaunch) -> None:
    """Run one replica in this process until it is drained."""
    _set_up_logging(launch)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_replica(launch, owns_process=True))


async def serve_replica(launch: ReplicaLaunch, *, owns_process: bool = False) -> None:
    """Run one replica on the running loop until it is drained.

    Args:
        launch: What to run.
        owns_process: Whether signals, the default runtime and the garbage collector are this replica's.
    """
    life = _Life(launch, owns_process=owns_process)
    await life.run()


class _Life:
    """The parts of one replica and the order they start and end in."""

    def __init__(self, launch: ReplicaLaunch, *, owns_process: bool) -> None:
        self._launch = launch
        self._owns_process = owns_process
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._router = Router(loop)
        self._user = UserCallable(launch.deployment, launch.options.max_ongoing_requests)
        self._replica = Replica(
            loop,
            self._user,
            app_name=launch.app_name,
            max_ongoing_requests=launch.options.max_ongoing_requests,
            tuner=_tuner(launch),
        )
        self._began = loop.time()
        self._metrics: ProcessMetrics | None = None
        self._counts = ReplicaMetrics(launch.app_name, launch.deployment, launch.replica_tag)
        if owns_process:
            self._replica.calls.access_log = _access_log(launch, loop)
            self._begin_metrics(launch)
        self._link = ControlLink(
            launch.controller_address,
            Hello(role="replica", peer_id=launch.replica_id, pid=os.getpid()),
            on_table=self._router.apply,
            on_notice=self._on_notice,
            on_gone=lambda: self._leave(0.0),
        )
        self._router.report_load(lambda loads: self._link.send(LoadReport(loads=loads)))
        self._router.troubles.send = lambda app, name, number, why: self._link.send(
            RouterTrouble(app_name=app, deployment=name, num_requests=number, error=why)
        )
        # Threads of one process share its fate: only a process of its own can be frozen, helped or killed.
        self._watchdog = Watchdog(launch.controller_address, launch.replica_id) if owns_process else None
        self._context: ReplicaContext | None = None
        #: Whether a router of the user's hears of this replica.
        self._tells_router = False
        #: One at a time, in the order they came.
        self._reconfiguring = asyncio.Lock()
        #: False after user code failed to take a user_config: nobody knows what it made of it.
        self._is_configured = True
        self._lifespan: Lifespan | None = None
        #: Seconds the drain may take; set when the replica is to leave.
        self._leaving: asyncio.Future[float] = loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    def _begin_metrics(self, launch: ReplicaLaunch) -> None:
        # Threads of one process publish nothing: only an instance has a place for it.
        if metrics_level() == "off":
            return
        counts, replica = self._counts, self._replica
        replica.http.metrics = replica.calls.metrics = counts
        self._metrics = ProcessMetrics(
            self._router, launch.controller_address, role="replica", caller=launch.replica_tag
        )
        self._metrics.add(lambda: counts.collect(replica.slots, replica.transferred), counts.traffic)
        self._metrics.start()

    async def run(self) -> None:
        runtime = Runtime(
            self._loop, self._router, app_name=self._launch.app_name, revision=self._launch.revision
        )
        use_runtime(runtime)
        if self._owns_process:
            set_default_runtime(runtime)
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._on_signal, signal.Signals(number).name)
        await self._link.open()
        if self._watchdog is not None:
            self._watchdog.start()
        try:
            if await self._start():
                await self._serve()
        finally:
            if self._watchdog is not None:
                self._watchdog.stop()
            for task in list(self._tasks):
                task.cancel()
            if self._replica.calls.access_log is not None:
                self._replica.calls.access_log.flush()
            if self._metrics is not None:
                self._metrics.close()
            await self._router.close()
            await self._link.close()

    # ---- start

    async def _start(self) -> bool:
        start = self._loop.create_task(self._start_user_code())
        waited: list[asyncio.Future[Any]] = [start, self._leaving]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            start.cancel()
            await asyncio.wait([start])
            return False
        error = start.exception()
        if error is None:
            return True
        if not isinstance(error, Exception | SystemExit):
            raise error
        text = _user_traceback(error)
        logger.error("the replica failed to start:\n%s", text)
        self._link.send(ReplicaFailed(replica_id=self._launch.replica_id, error=text))
        return False

    async def _start_user_code(self) -> None:
        launch = self._launch
        context = ReplicaContext(
            replica_id=ReplicaID(launch.replica_tag, launch.deployment, launch.app_name),
            servable_object=None,
            rank=ReplicaRank(launch.rank, 0, launch.rank),
            world_size=launch.world_size,
            code_version=str(launch.revision),
            max_ongoing_requests=launch.options.max_ongoing_requests,
        )
        enter_replica(context)
        replica_models.set(self._replica.models)
        self._context = context
        if self._owns_process:
            set_tag_source(self._metric_tags)
        target, args, kwargs = loads_definition(launch.definition)
        began = self._loop.time()
        await self._user.construct(target, args, kwargs)
        self._counts.took("initialization", self._loop.time() - began)
        context.servable_object = self._user.instance
        await self._build_asgi_app(target)
        await self._user.reconfigure(launch.options.user_config)
        async with asyncio.timeout(launch.options.health_check_timeout_s):
            await self._user.check_health()
        if self._owns_process:
            # What start-up made lives as long as the process; collections need not look at it again.
            gc.collect()
            gc.freeze()
        await self._replica.listen(launch.address)

    async def _build_asgi_app(self, target: Any) -> None:
        ingress = asgi_ingress_of(target)
        if ingress is None:
            return
        app = await ingress.build(self._user.instance)
        self._lifespan = Lifespan(app)
        await self._lifespan.startup()
        self._replica.http.set_asgi_app(app, self._lifespan.state)

    # ---- serve

    async def _serve(self) -> None:
        launch = self._launch
        self._link.announce(ReplicaReady(replica_id=launch.replica_id, pid=os.getpid()))
        self._counts.started()
        self._counts.took("startup", self._loop.time() - self._began)
        if self._user.has_method("check_health"):
            self._spawn(self._watch_health())
        if self._user.has_method("record_autoscaling_stats"):
            self._spawn(self._report_stats())
        self._tell_router()
        timeout_s = await self._leaving
        told = self._loop.time()
        if not await self._replica.drain(timeout_s) and self._replica.ongoing:
            logger.warning(
                "requests still running after %s s, which are cancelled: %d",
                timeout_s,
                self._replica.ongoing,
            )
            await self._replica.cancel_all(CANCEL_GRACE_S)
        self._replica.close()
        try:
            async with asyncio.timeout(max(timeout_s, 1.0)):
                if self._lifespan is not None:
                    await self._lifespan.shutdown()
                await self._user.close()
                await self._replica.models.close()
        except Exception:  # the user's clean-up raises anything; the replica ends all the same
            logger.exception("the clean-up of the deployment failed")
        self._counts.took("shutdown", self._loop.time() - told)

    async def _watch_health(self) -> None:
        failures = 0
        began = self._loop.time()
        while True:
            options = self._launch.options
            # Checks begin a period apart, but never before the last one is over, as in Ray Serve.
            await asyncio.sleep(max(0.0, began + options.health_check_period_s - self._loop.time()))
            began = self._loop.time()
            try:
                async with asyncio.timeout(options.health_check_timeout_s):
                    await self._user.check_health()
                self._counts.took("health_check", self._loop.time() - began)
                failures = 0
            except Exception as error:  # noqa: BLE001 - a user's health check raises anything
                failures += 1
                self._counts.health_check_failed()
                text = _user_traceback(error)
                logger.warning("health check failed (%d of %d):\n%s", failures, UNHEALTHY_AFTER, text)
                if failures >= UNHEALTHY_AFTER:
                    self._link.announce(ReplicaUnhealthy(replica_id=self._launch.replica_id, error=text))
                    self._leave(options.graceful_shutdown_timeout_s)
                    return

    async def _report_stats(self) -> None:
        """Ask the user's method for its numbers now and then, and tell them."""
        while True:
            scaling = self._launch.options.autoscaling
            period_s = scaling["metrics_interval_s"] if scaling else _LONGEST_STATS_PAUSE_S
            await asyncio.sleep(min(period_s, _LONGEST_STATS_PAUSE_S))
            if scaling is None:
                continue
            try:
                async with asyncio.timeout(_STATS_TIMEOUT_S):
                    found = await self._user.run_hook("record_autoscaling_stats")
                stats = {str(name): float(value) for name, value in dict(found).items()}
            except Exception as error:  # noqa: BLE001 - a user's method raises anything; its numbers stay as they were
                logger.warning("record_autoscaling_stats failed:\n%s", _user_traceback(error))
                continue
            self._link.send(ReplicaStats(replica_id=self._launch.replica_id, stats=stats))

    def _tell_router(self) -> None:
        """Tell a router of the user's how it is here, from now on, if there is one."""
        if self._launch.options.router.name == CUSTOM and not self._tells_router:
            self._tells_router = True
            teller = RoutingStatsTeller(
                self._launch.replica_id,
                self._user,
                self._replica.models.caches,
                rule=lambda: self._launch.options.router,
                table=lambda: self._router.table,
            )
            self._spawn(self._keep_telling(teller))

    async def _keep_telling(self, teller: RoutingStatsTeller) -> None:
        try:
            await teller.run()
        finally:
            self._tells_router = False

    # ---- notices

    def _on_notice(self, notice: Notice) -> None:
        if isinstance(notice, DrainReplica):
            self._leave(notice.timeout_s)
        elif isinstance(notice, Reconfigure):
            self._spawn(self._reconfigure(notice))

    async def _reconfigure(self, order: Reconfigure) -> None:
        error = ""
        async with self._reconfiguring:
            try:
                await self._take_options(order)
            except Exception as problem:  # noqa: BLE001 - user code raises anything; it is told
                error = _user_traceback(problem)
                logger.error("reconfigure failed:\n%s", error)
        self._link.send(
            ReconfigureDone(replica_id=self._launch.replica_id, error=error, revision=order.revision)
        )

    async def _take_options(self, order: Reconfigure) -> None:
        """Become what a start with these options would have made; the same order twice changes nothing."""
        before, new = self._launch, order.options
        launch = msgspec.structs.replace(
            before, options=new, world_size=order.world_size, app_logging=order.app_logging
        )
        # All but the user_config first: user code may look at it, and may fail.
        self._launch = msgspec.structs.replace(
            launch, options=msgspec.structs.replace(new, user_config=before.options.user_config)
        )
        if self._context is not None:
            self._context.world_size = order.world_size
            self._context.max_ongoing_requests = new.max_ongoing_requests
        self._tell_router()
        if new.max_ongoing_requests != before.options.max_ongoing_requests:
            self._user.resize(new.max_ongoing_requests)
            self._replica.resize(new.max_ongoing_requests)
        if self._owns_process and _log_options(launch) != _log_options(before):
            self._change_logging(launch)
        if not self._is_configured or new.user_config != before.options.user_config:
            self._is_configured = False
            began = self._loop.time()
            await self._user.reconfigure(new.user_config)
            self._counts.took("reconfigure", self._loop.time() - began)
            self._is_configured = True
        self._launch = launch

    def _change_logging(self, launch: ReplicaLaunch) -> None:
        _set_up_logging(launch)
        calls = self._replica.calls
        if calls.access_log is not None:
            calls.access_log.flush()
        calls.access_log = _access_log(launch, self._loop)

    def _on_signal(self, name: str) -> None:
        """Leave as if told by the controller, which must know: callers leave when it unlists this replica."""
        self._link.announce(
            ReplicaUnhealthy(
                replica_id=self._launch.replica_id, error=f"the replica was asked to end by {name}"
            )
        )
        self._leave(self._launch.options.graceful_shutdown_timeout_s)

    def _metric_tags(self) -> dict[str, str]:
        launch = self._launch
        request = request_context.get()
        return {
            "deployment": launch.deployment,
            "replica": launch.replica_tag,
            "application": launch.app_name,
            "route": request.route if request is not None else "",
        }

    def _leave(self, timeout_s: float) -> None:
        if not self._leaving.done():
            self._leaving.set_result(timeout_s)

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _user_traceback(error: BaseException) -> str:
    """Return the traceback without the frames of our own that lead to the user's code."""
    frames = error.__traceback__
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith((own, asyncio.__path__[0])):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__)).rstrip()


def _set_up_logging(launch: ReplicaLaunch) -> None:
    def context() -> LogContext | None:
        request = request_context.get()
        if request is None:
            return None
        return LogContext(
            request.request_id, request.route, launch.app_name, launch.deployment, launch.replica_tag
        )

    set_up_logging(_component(launch), _log_options(launch), context=context)


def _component(launch: ReplicaLaunch) -> Component:
    return Component(
        kind="replica",
        name=f"{launch.app_name}_{launch.deployment}",
        id=launch.replica_tag,
        context=LogContext("", "", launch.app_name, launch.deployment, launch.replica_tag),
    )


def _log_options(launch: ReplicaLaunch) -> LogOptions:
    return LogOptions.from_layers(launch.app_logging, launch.options.logging)


def _tuner(launch: ReplicaLaunch) -> GradientLimit | None:
    """Return what sets the number of requests in work, for ``max_ongoing_requests="auto"``."""
    options = launch.options
    return GradientLimit(maximum=options.max_ongoing_requests) if options.tunes_ongoing_requests else None


def _access_log(launch: ReplicaLaunch, loop: asyncio.AbstractEventLoop) -> AccessLog | None:
    options = _log_options(launch)
    if not options.writes_access_log:
        return None
    return AccessLog(
        _component(launch),
        options,
        wall=RealClock.wall,
        schedule=lambda flush: loop.call_later(ACCESS_LOG_PAUSE_S, flush),
    )
