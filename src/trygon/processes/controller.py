"""The controller process, put together. Runs no user code and is never on a request's path."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from pathlib import Path

import uvloop

from trygon.clock import RealClock
from trygon.control.controller import Controller
from trygon.control.launching import Launching
from trygon.control.server import ControlServer
from trygon.control.store import FileStore
from trygon.engine.environment import visible_gpus
from trygon.engine.ledger import Ledger
from trygon.engine.local import LocalEngine
from trygon.spec.instance import InstanceConfig, InstanceRecord

__all__ = ["main", "make_store"]

logger = logging.getLogger("trygon.control")


def make_store(config: InstanceConfig) -> FileStore:
    """Return the store of an instance; what dies with its user needs no waiting for the disk."""
    # An attached instance starts empty, and must not empty what a detached one of its name has saved.
    name = "state-attached.bin" if config.attached else "state.bin"
    return FileStore(Path(config.state_dir) / name, durable=not config.attached)


def main(config: InstanceConfig, record: InstanceRecord, listen_fd: int, link_fd: int) -> None:
    """Run the controller of an instance until its supervisor ends it.

    Args:
        config: The instance as it was asked for.
        record: The instance as it runs.
        listen_fd: Listening Unix socket of the control link.
        link_fd: Connected socket to the supervisor.
    """
    _log_to_stderr()
    uvloop.run(_serve(config, record, listen_fd, link_fd))


async def _serve(config: InstanceConfig, record: InstanceRecord, listen_fd: int, link_fd: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = ControlServer()
    store = make_store(config)
    controller = Controller(
        engine=LocalEngine(socket.socket(fileno=link_fd), _ledger(config), on_lost=stop.set),
        server=server,
        store=store,
        clock=RealClock(),
        record=record,
        launching=Launching(record, store.blobs.path, config.http_options.get("logging")),
        num_ingress=config.num_ingress,
    )
    await controller.start()
    await server.start(socket.socket(fileno=listen_fd))
    ends = [loop.create_task(stop.wait()), loop.create_task(controller.broken.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    broken = controller.broken.is_set()
    for end in ends:
        end.cancel()
    await controller.close()
    if broken:
        logger.error("the controller ends, because its state can no longer be trusted; a new one takes over")
        raise SystemExit(1)


def _ledger(config: InstanceConfig) -> Ledger:
    gpu_ids = config.gpu_ids
    if gpu_ids is None:
        gpu_ids = visible_gpus(os.environ, os.listdir("/dev"))
    return Ledger(cpus=float(_usable_cpus()), gpu_ids=gpu_ids, custom=config.resources)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s %(name)s -- %(message)s"))
    root = logging.getLogger("trygon")
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
