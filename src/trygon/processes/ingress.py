"""An ingress process: takes HTTP requests from the supervisor's socket and sends them to replicas. No user code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
from collections.abc import Callable

import uvloop

from trygon.client.link import ControlLink
from trygon.dataplane.process_metrics import ProcessMetrics
from trygon.dataplane.router import Router
from trygon.dataplane.routes import RouterGateway
from trygon.observability.logs import Component, LogOptions, log_copy, set_up_logging
from trygon.processes.metrics import metrics_level
from trygon.processes.tls import server_tls
from trygon.protocols.http.metrics import IngressMetrics
from trygon.protocols.http.server import HttpServer
from trygon.protocols.http.settings import HttpSettings
from trygon.spec.control import Hello, LoadReport, RouterTrouble, TableApplied
from trygon.spec.launch import IngressLaunch
from trygon.spec.routing import HttpTimeouts, RoutingTable

__all__ = ["main"]

#: What ongoing requests get to finish after SIGTERM.
DRAIN_S = 20.0
#: New connections wait in the socket's queue this long for a routing table (the controller may be restarting).
FIRST_TABLE_S = 5.0
#: Descriptors; the HTTP front takes 20,000 connections at most.
MAX_FILES = 65_536


def main(launch: IngressLaunch) -> None:
    """Serve HTTP on the inherited socket until SIGTERM, then finish what was begun."""
    set_up_logging(
        Component(kind="proxy", name="ingress", id=str(launch.slot)), LogOptions.from_layers(_logging(launch))
    )
    _raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(launch))


def _raise_file_limit() -> None:
    """Allow as many connections as the administrator lets us: the usual soft limit is 1024.

    Here only: user code that calls select() breaks above 1024 descriptors.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(launch: IngressLaunch) -> None:
    loop = asyncio.get_running_loop()
    router = Router(loop, is_ingress=True)
    gateway = RouterGateway(router, launch.http_options.get("root_path") or "")
    stop: asyncio.Future[None] = loop.create_future()
    first_table = asyncio.Event()

    def leave() -> None:
        if not stop.done():
            stop.set_result(None)

    timeouts: HttpTimeouts | None = None

    def set_timeouts(new: HttpTimeouts | None) -> None:
        nonlocal timeouts
        timeouts = new
        server.set_timeouts(
            request_timeout_s=new.request_timeout_s if new else settings.request_timeout_s,
            keep_alive_timeout_s=new.keep_alive_timeout_s if new else settings.keep_alive_timeout_s,
        )

    def apply(table: RoutingTable) -> None:
        router.apply(table)
        gateway.apply(table)
        if table.http_timeouts != timeouts:
            set_timeouts(table.http_timeouts)
        first_table.set()
        link.announce(TableApplied(version=table.version))

    link = ControlLink(
        launch.controller_address,
        Hello(role="ingress", peer_id=str(launch.slot), pid=os.getpid()),
        on_table=apply,
        on_gone=leave,
    )
    _report(router, link)
    sock = socket.socket(fileno=launch.listen_fd)
    settings = _settings(launch)
    copy = log_copy()
    server = HttpServer(
        sock,
        gateway,
        settings,
        loop=loop,
        access_log_copy=copy.write_lines if copy is not None else None,
        tls=server_tls(launch.http_options),
    )
    metrics = _count(router, server, launch)
    await link.open()
    # A restarted ingress without a table would answer 503 for applications that run.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_TABLE_S):
            await first_table.wait()
    _spare_collections()
    server.start()
    _on_end(loop, leave)
    await stop
    await server.drain(DRAIN_S)
    if metrics is not None:
        metrics.close()
    await router.close()
    await link.close()


def _report(router: Router, link: ControlLink) -> None:
    router.report_load(lambda loads: link.send(LoadReport(loads=loads)))
    router.troubles.send = lambda app, name, number, why: link.send(
        RouterTrouble(app_name=app, deployment=name, num_requests=number, error=why)
    )


def _spare_collections() -> None:
    """Connections leave no cycles, and a full collection among 10,000 of them would hold the loop for 67 ms."""
    gc.freeze()
    gc.set_threshold(10_000, 100, 100)


def _on_end(loop: asyncio.AbstractEventLoop, leave: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)


def _count(router: Router, server: HttpServer, launch: IngressLaunch) -> ProcessMetrics | None:
    level = metrics_level()
    if level == "off":
        return None
    name = f"ingress-{launch.slot}"
    metrics = ProcessMetrics(router, launch.controller_address, role=name, caller=name, is_ingress=True)
    counted = IngressMetrics(str(launch.slot), has_stages=level == "on")
    metrics.add(server.count_into(counted), counted.traffic)
    metrics.start()
    return metrics


def _settings(launch: IngressLaunch) -> HttpSettings:
    options = launch.http_options
    timeout_s = options.get("request_timeout_s")
    keep_alive_s = options.get("keep_alive_timeout_s")
    logs = LogOptions.from_layers(_logging(launch))
    return HttpSettings(
        request_timeout_s=float(timeout_s) if timeout_s else 0.0,
        keep_alive_timeout_s=90.0 if keep_alive_s is None else float(keep_alive_s),
        session_id_header=options.get("session_id_header") or "x-session-id",
        access_log=logs.writes_access_log,
        access_log_by_route=True,
        access_log_as_json=logs.encoding == "JSON",
        ingress_id=str(launch.slot),
        scheme="https" if "ssl_certfile" in options else "http",
    )


def _logging(launch: IngressLaunch) -> dict[str, object] | None:
    found = launch.http_options.get("logging")
    return found if isinstance(found, dict) else None
