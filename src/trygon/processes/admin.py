"""The admin process, put together: HTTP on the supervisor's socket, questions to the controller. No user code."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import uvloop

from trygon.client.admin_token import ensure_token, read_token
from trygon.client.link import ControlLink
from trygon.config import read_settings
from trygon.observability.logs import Component, LogOptions, set_up_logging
from trygon.processes.admin_backend import BUILD_S, ControllerBackend
from trygon.processes.tls import admin_tls_options, server_tls
from trygon.protocols.admin import Access, AdminApplication, AdminGateway
from trygon.protocols.http import HttpServer, HttpSettings
from trygon.spec.control import Hello
from trygon.spec.launch import AdminLaunch

__all__ = ["main"]

#: What ongoing requests get to finish after SIGTERM.
DRAIN_S = 2.0
#: Few clients come here; the bound keeps a broken one from taking all descriptors and memory.
_MAX_CONNECTIONS = 256
_MAX_BUFFERED_BYTES = 64 << 20


def main(launch: AdminLaunch) -> None:
    """Serve the admin API on the inherited socket until SIGTERM, then finish what was begun."""
    set_up_logging(Component(kind="admin", name="admin", id="0"), LogOptions.from_layers(None))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(launch))


async def _serve(launch: AdminLaunch) -> None:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def leave() -> None:
        if not stop.done():
            stop.set_result(None)

    link = ControlLink(launch.controller_address, Hello(role="admin", pid=os.getpid()), on_gone=leave)
    await link.open()
    tls = server_tls(admin_tls_options(launch.options, launch.http_options))
    scheme = "https" if tls is not None else "http"
    # It is there since the instance started, unless somebody removed it to have another one.
    token = read_token(ensure_token(Path(launch.token_path).parent))
    access = Access(token, launch.options, scheme=scheme)
    backend = ControllerBackend(
        link,
        folder=os.getcwd(),
        runtime_dir=Path(launch.controller_address).parent,
        http_options=launch.http_options,
        keep_alive_s=read_settings().http_keep_alive_timeout_s,
    )
    application = AdminApplication(backend, metrics_prefix=launch.options.metrics_prefix)
    gateway = AdminGateway(access, application, loop=loop)
    settings = HttpSettings(
        own_paths=False,
        scheme=scheme,
        max_connections=_MAX_CONNECTIONS,
        max_buffered_bytes=_MAX_BUFFERED_BYTES,
        # Longest is a deployment; what takes longer is a client that never ends its body.
        request_timeout_s=BUILD_S + 30.0,
    )
    server = HttpServer(socket.socket(fileno=launch.listen_fd), gateway, settings, loop=loop, tls=tls)
    server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    await stop
    await server.drain(DRAIN_S)
    await gateway.close()
    await link.close()
