"""A user-code helper: runs the functions of one application for the controller, which may run none.

Every function has a thread of its own, so that one that hangs holds up no other. One that hangs for good ends
the helper, and the supervisor starts another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import msgspec
import uvloop

from trygon.processes.helper_routing import RoutingDesk
from trygon.processes.helper_services import SERVICES, UserFunctions
from trygon.spec.helper import ROUTING, ROUTING_STATS, Answer, Ask
from trygon.spec.launch import HelperLaunch
from trygon.spec.wire import MessageReader, pack

__all__ = ["main", "serve_helper"]

#: A function that has not returned after this is taken for one that never will.
HUNG_S = 60.0

logger = logging.getLogger("trygon.helper")


def main(launch: HelperLaunch) -> None:
    """Answer on the inherited socket until the process is ended."""
    listener = socket.socket(fileno=launch.listen_fd)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_helper(listener, None, launch=launch, on_hung=lambda: os._exit(1)))


async def serve_helper(
    listener: socket.socket,
    stop: asyncio.Future[None] | None,
    *,
    launch: HelperLaunch,
    on_hung: Callable[[], None],
) -> None:
    """Answer what is asked on `listener`.

    Args:
        listener: A listening Unix socket, for the owner only.
        stop: Ends the helper when it is done; None serves for ever.
        launch: Names the routers of the application.
        on_hung: Called when a function did not return for a minute.
    """
    loop = asyncio.get_running_loop()
    app_name = launch.key.rpartition("#")[0]
    routing = RoutingDesk(loop, app_name, launch.routers, on_hung, HUNG_S)
    desk = _Desk(loop, on_hung, routing)
    server = await loop.create_unix_server(lambda: _Connection(desk), sock=listener)
    try:
        await (stop if stop is not None else loop.create_future())
    finally:
        server.close()
        desk.close()
        await server.wait_closed()


class _Desk:
    """The user's functions and the threads they run on."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_hung: Callable[[], None], routing: RoutingDesk
    ) -> None:
        self.routing = routing
        self._loop = loop
        self._on_hung = on_hung
        self._functions = UserFunctions()
        #: By function and owner.
        self._threads: dict[str, ThreadPoolExecutor] = {}
        #: Since when a function runs, by the same.
        self._busy: dict[str, float] = {}
        #: Callers that are connected.
        self.transports: set[asyncio.Transport] = set()

    async def answer(self, ask: Ask) -> Answer:
        """Run what is asked for."""
        key = self._functions.key(ask)
        since = self._busy.get(key)
        if since is not None:
            return Answer(
                seq=ask.seq,
                error=f"{ask.function.title} still runs since {self._loop.time() - since:.1f} s ago; "
                "let it return sooner",
            )
        threads = self._threads.get(key)
        if threads is None:
            threads = self._threads[key] = ThreadPoolExecutor(1, thread_name_prefix="helper")
        self._busy[key] = self._loop.time()
        hung = self._loop.call_later(HUNG_S, self._on_hung)
        try:
            return await self._loop.run_in_executor(threads, self._run, ask)
        finally:
            hung.cancel()
            del self._busy[key]

    def _run(self, ask: Ask) -> Answer:
        try:
            service = SERVICES[ask.service]
            body = service(self._functions.get(ask), ask)
            # Here, where the culprit can be named, and not when it is sent.
            msgspec.msgpack.encode(body)
        except BaseException as error:  # noqa: BLE001 - user code raises anything, SystemExit too
            return Answer(seq=ask.seq, error=_told(error))
        return Answer(seq=ask.seq, body=body)

    def close(self) -> None:
        """Begin nothing more, and let the callers go."""
        for transport in list(self.transports):
            transport.abort()
        self.routing.close()
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)


def _told(error: BaseException) -> str:
    """Return the last line for what we found wrong, the user's traceback for what user code raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if all(frame.filename.startswith(own) for frame in frames):
        return f"{type(error).__name__}: {error}"
    shown = [frame for frame in frames if not frame.filename.startswith(own)]
    return "".join(traceback.format_list(shown) + traceback.format_exception_only(error)).rstrip()


class _Connection(asyncio.Protocol):
    """One caller."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._reader: MessageReader[Ask] = MessageReader(Ask)
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: One object, by which a router tells its callers apart.
        self._reply = self._send

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no sub-class.
        self._transport = cast("asyncio.Transport", transport)
        self._desk.transports.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._desk.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            asks = self._reader.feed(data)
        except (ValueError, msgspec.DecodeError):
            logger.exception("a caller sent something unreadable and is cut off")
            if self._transport is not None:
                self._transport.abort()
            return
        for ask in asks:
            if ask.service in (ROUTING, ROUTING_STATS):
                self._desk.routing.take(ask, self._reply)
                continue
            task = asyncio.get_running_loop().create_task(self._answer(ask))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _send(self, answers: list[Answer]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(map(pack, answers)))

    async def _answer(self, ask: Ask) -> None:
        answer: Any = await self._desk.answer(ask)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(answer))
