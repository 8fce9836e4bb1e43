"""A replica's data plane: takes frames, runs user code, answers with frames.

Async code runs as a task on this loop, synchronous code in the request pool. `max_ongoing_requests`
is enforced here, over all callers: one more is rejected at once and its caller tries elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator
from types import AsyncGeneratorType, GeneratorType
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp

from trygon.dataplane.asgi import HttpChannel, run_http, run_websocket
from trygon.dataplane.context import RequestContext, request_context
from trygon.dataplane.exchanges import CallExchange, Exchange, HttpExchange
from trygon.dataplane.frames import FrameFlag, FrameKind, encode
from trygon.dataplane.http_call import retry_after
from trygon.dataplane.messages import CallMeta, ErrorKind, HttpMeta
from trygon.dataplane.payloads import dump, load
from trygon.dataplane.requests import HttpRequest, http_scope, websocket_scope
from trygon.dataplane.results import convert
from trygon.dataplane.segments import Segment
from trygon.dataplane.task_errors import dump_error
from trygon.dataplane.transport import FrameConnection
from trygon.dataplane.user_callable import Method, UserCallable
from trygon.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaDiedError,
    SerializationError,
    ServeError,
)

__all__ = ["Replica", "ReplicaConnection"]

logger = logging.getLogger("ray.serve")

_MORE = int(FrameFlag.MORE)
_STREAM = int(FrameFlag.STREAM)
_EXTERNAL = int(FrameFlag.EXTERNAL)
_HTTP = int(FrameKind.HTTP)
_CALL = int(FrameKind.CALL)
_DATA = int(FrameKind.DATA)
_CREDIT = int(FrameKind.CREDIT)
_CANCEL = int(FrameKind.CANCEL)
_PING = int(FrameKind.PING)
_PONG = int(FrameKind.PONG)
_REJECT = int(FrameKind.REJECT)

_TEXT_HEAD = b"content-type: text/plain; charset=utf-8\r\n"
_ERROR_BODY = b"Internal Server Error"

#: A caller that was told of room has sent its request long before; see `Replica._announce_room`.
ROOM_RETRY_S = 0.005

_decode_http = msgspec.msgpack.Decoder(HttpMeta).decode
_decode_call = msgspec.msgpack.Decoder(CallMeta).decode


class ReplicaConnection(FrameConnection):
    """One caller's connection to this replica."""

    __slots__ = ("_held", "exchanges", "replica")

    def __init__(self, loop: asyncio.AbstractEventLoop, replica: Replica) -> None:
        super().__init__(loop)
        self.replica = replica
        self.exchanges: dict[int, Exchange] = {}
        #: Segments of results that the caller has not mapped yet.
        self._held: dict[int, list[Segment]] = {}

    @property
    def load(self) -> int:
        """Requests in work in this replica, of all callers."""
        return self.replica.ongoing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.replica.connected(self)

    def on_frame(  # noqa: PLR0913 - a frame's fields; a value object costs more than the rest
        self, kind: int, stream: int, flags: int, status: int, value: int, head: bytes, body: bytes
    ) -> None:
        if kind == _HTTP:
            self.replica.begin_http(self, stream, flags, head, body)
        elif kind == _CALL:
            self.replica.begin_call(self, stream, flags, head, body)
        elif kind == _PING:
            self.send(encode(_PONG, 0, value=value))
        else:
            self._on_exchange_frame(kind, stream, flags, value, body)

    def _on_exchange_frame(self, kind: int, stream: int, flags: int, value: int, body: bytes) -> None:
        if kind == _CREDIT and flags & _EXTERNAL:
            held = self._held.get(stream)
            if held:
                held.pop(0).close()
                if not held:
                    del self._held[stream]
            return
        exchange = self.exchanges.get(stream)
        if exchange is None:
            return
        if kind == _CREDIT:
            exchange.on_credit(value)
        elif kind == _DATA:
            exchange.on_data(body, flags)
        elif kind == _CANCEL:
            self.replica.cancel(exchange)

    def hold(self, stream: int, segment: Segment) -> None:
        """Keep a result's segment until the caller has mapped it or is gone."""
        self._held.setdefault(stream, []).append(segment)

    def on_resumed(self) -> None:
        for exchange in list(self.exchanges.values()):
            exchange.wake()

    def on_lost(self, error: BaseException | None) -> None:
        for held in self._held.values():
            for segment in held:
                segment.close()
        self._held.clear()
        exchanges = list(self.exchanges.values())
        for exchange in exchanges:
            exchange.release()
            self.replica.cancel(exchange)
        self.exchanges.clear()
        self.replica.disconnected(self)


class Replica:
    """Counts, runs and drains the requests of one replica."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        user: UserCallable,
        *,
        app_name: str,
        deployment: str,
        max_ongoing_requests: int,
    ) -> None:
        self.loop = loop
        self.user = user
        self.app_name = app_name
        self.deployment = deployment
        self.max_ongoing_requests = max_ongoing_requests
        #: The application to run for HTTP requests, or None when user code takes a Request.
        self.asgi_app: ASGIApp | None = None
        #: What the application's lifespan put into its state.
        self._state: dict[str, Any] = {}
        #: Requests that hold a slot; 0 <= ongoing <= max_ongoing_requests.
        self.ongoing = 0
        #: Requests that were answered or failed since the start.
        self.num_finished = 0
        self.is_draining = False
        #: True once the time to finish ran out.
        self._is_ending = False
        self._connections: set[ReplicaConnection] = set()
        #: Callers that were rejected and are told, in turn, when there is room.
        self._rejected: dict[ReplicaConnection, None] = {}
        self._room_timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._server: asyncio.AbstractServer | None = None

    # ---- listening and draining

    async def listen(self, path: str) -> None:
        """Take callers on the Unix socket `path`.

        Raises:
            OSError: The socket cannot be bound.
        """
        self._server = await self.loop.create_unix_server(lambda: ReplicaConnection(self.loop, self), path)

    def connected(self, connection: ReplicaConnection) -> None:
        """Count a caller."""
        self._connections.add(connection)

    def disconnected(self, connection: ReplicaConnection) -> None:
        """Forget a caller."""
        self._connections.discard(connection)
        self._rejected.pop(connection, None)
        self._check_idle()

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new, let ongoing requests end and callers leave; False if time ran out.

        Callers leave by themselves when the routing table no longer lists this replica; a request that
        crosses that news is rejected and its caller sends it elsewhere, so none is lost.
        """
        self.is_draining = True
        if self._server is not None:
            self._server.close()
        self._check_idle()
        if self.ongoing or self._connections:
            self._idle = self.loop.create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle
            except TimeoutError:
                return False
        return True

    def set_asgi_app(self, app: ASGIApp, state: dict[str, Any]) -> None:
        """Answer HTTP requests with `app`; each request gets a copy of its lifespan state."""
        self.asgi_app = app
        self._state = state

    async def cancel_all(self, grace_s: float) -> None:
        """Cancel every request and give the tasks `grace_s` seconds to end."""
        self._is_ending = True
        tasks = []
        for connection in self._connections:
            for exchange in list(connection.exchanges.values()):
                if exchange.task is not None:
                    tasks.append(exchange.task)
                    exchange.mark_gone()
                    exchange.on_cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)

    def close(self) -> None:
        """Drop every caller and stop listening."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()

    def _check_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and not self.ongoing and not self._connections:
            self._idle.set_result(None)

    # ---- slots

    def _take_slot(self, connection: ReplicaConnection, stream: int) -> bool:
        if self.ongoing >= self.max_ongoing_requests or self.is_draining:
            connection.send(encode(_REJECT, stream, value=self.ongoing))
            if not self.is_draining:
                self._rejected[connection] = None
                if self.ongoing < self.max_ongoing_requests:
                    self._announce_room()
            return False
        self.ongoing += 1
        return True

    def _free_slot(self) -> None:
        self.ongoing -= 1
        self.num_finished += 1
        if self._rejected:
            self._announce_room()
        if self._idle is not None:
            self._check_idle()

    def _announce_room(self) -> None:
        """Tell the caller that was rejected first; one caller for each slot, so that they do not race.

        It may have nothing to send any more, be frozen or gone; so the next one is told when the slot is
        still free a moment later.
        """
        connection = next(iter(self._rejected))
        del self._rejected[connection]
        connection.send(encode(_CREDIT, 0, value=1))
        if self._rejected and self._room_timer is None:
            self._room_timer = self.loop.call_later(ROOM_RETRY_S, self._announce_again)

    def _announce_again(self) -> None:
        self._room_timer = None
        if self._rejected and self.ongoing < self.max_ongoing_requests and not self.is_draining:
            self._announce_room()

    def cancel(self, exchange: Exchange) -> None:
        """End a request that nobody waits for."""
        exchange.mark_gone()
        if isinstance(exchange, HttpExchange) and exchange.is_websocket:
            # Delivered to user code as a disconnect, as ASGI says.
            return
        exchange.on_cancel()

    # ---- HTTP

    def begin_http(
        self, connection: ReplicaConnection, stream: int, flags: int, head: bytes, body: bytes
    ) -> None:
        """Start a request from outside."""
        if not self._take_slot(connection, stream):
            return
        meta = _decode_http(head)
        more = bool(flags & _MORE)
        exchange = HttpExchange(connection, stream, body, more=more)
        exchange.is_websocket = meta.is_websocket
        connection.exchanges[stream] = exchange
        exchange.task = self.loop.create_task(self._serve_http(exchange, meta))

    async def _serve_http(self, exchange: HttpExchange, meta: HttpMeta) -> None:
        context = RequestContext(
            meta.route, meta.request_id, self.app_name, meta.model_id, meta.session_id, is_http_request=True
        )
        request_context.set(context)
        slot = _Slot(self)
        try:
            if exchange.is_gone:
                raise asyncio.CancelledError
            app = self.asgi_app
            if meta.is_websocket:
                await self._serve_websocket(exchange, meta)
            elif app is not None:
                if exchange.more:
                    exchange.accept_body()
                await run_http(app, http_scope(meta, self._state), exchange)
                if not exchange.has_started and not exchange.is_ended:
                    raise RuntimeError("the application returned without an answer")
            else:
                await self._answer(exchange, meta, slot)
        except asyncio.CancelledError as error:
            _cancel_children(context)
            if self._is_ending:
                exchange.fail(ErrorKind.UNAVAILABLE, b"the replica ended before this request was done")
            elif exchange.is_gone:
                exchange.fail(ErrorKind.CANCELLED, b"")
            else:
                # Nobody cancelled this request: user code awaited something that was.
                self._http_error(exchange, error)
        except BaseException as error:  # noqa: BLE001 - the request's boundary: user code raises anything
            self._http_error(exchange, error)
        finally:
            if exchange.is_left_open:
                # Returned in the middle of its answer: the client must not wait for the rest.
                exchange.fail(ErrorKind.TASK, b"")
            slot.leave()

    async def _serve_websocket(self, exchange: HttpExchange, meta: HttpMeta) -> None:
        if self.asgi_app is None:
            exchange.respond(
                403, _TEXT_HEAD, b"This deployment takes no websockets; use serve.ingress with a FastAPI app."
            )
            return
        await run_websocket(self.asgi_app, websocket_scope(meta, self._state), exchange)

    async def _answer(self, exchange: HttpExchange, meta: HttpMeta, slot: _Slot) -> None:
        """Call user code with a Request and send what it returns."""
        method = self.user.method("__call__")
        scope = http_scope(meta, self._state)
        if exchange.more:
            exchange.accept_body()
        args: tuple[Any, ...] = ()
        if method.takes_argument:
            receive = HttpChannel(exchange).receive
            args = (HttpRequest(scope, receive, None if exchange.more else exchange.body),)
        result = await self._run(method, slot, args, {})
        if isinstance(result, Response):
            await run_http(result, scope, exchange)
        elif method.is_generator or method.is_async_generator or hasattr(result, "__anext__"):
            raise TypeError(
                f"deployment {self.deployment!r} answered an HTTP request with a generator; "
                "return a StreamingResponse of it"
            )
        else:
            head, body = convert(result)
            exchange.respond(200, head, body)

    def _http_error(self, exchange: HttpExchange, error: BaseException) -> None:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, BackPressureError) and not exchange.has_started:
            head = _TEXT_HEAD + b"retry-after: %d\r\n" % max(1, math.ceil(retry_after(cause)))
            exchange.respond(cause.status_code, head, cause.message.encode())
            return
        if isinstance(cause, DeploymentUnavailableError | ReplicaDiedError) and not exchange.has_started:
            status = 502 if isinstance(cause, ReplicaDiedError) else 503
            exchange.respond(status, _TEXT_HEAD, str(cause).encode())
            return
        logger.error("request failed", exc_info=error)
        if exchange.is_websocket:
            return
        if exchange.has_started:
            exchange.fail(ErrorKind.TASK, b"")
        else:
            exchange.respond(500, _TEXT_HEAD, _ERROR_BODY)

    # ---- calls

    def begin_call(
        self, connection: ReplicaConnection, stream: int, flags: int, head: bytes, body: bytes
    ) -> None:
        """Start a handle call."""
        if not self._take_slot(connection, stream):
            return
        exchange = CallExchange(connection, stream, flags)
        connection.exchanges[stream] = exchange
        exchange.task = self.loop.create_task(self._serve_call(exchange, _decode_call(head), body))

    async def _serve_call(self, exchange: CallExchange, meta: CallMeta, body: bytes) -> None:
        context = RequestContext(meta.route, meta.request_id, self.app_name, meta.model_id, meta.session_id)
        request_context.set(context)
        slot = _Slot(self)
        try:
            if exchange.is_gone:
                raise asyncio.CancelledError
            method = self.user.method(meta.method)
            args, kwargs = load(body, meta.payload)
            if exchange.flags & _STREAM:
                await self._stream(exchange, method, slot, meta, args, kwargs)
            elif method.is_generator or method.is_async_generator:
                self._refuse_generator(exchange, meta)
            else:
                result = await self._run(method, slot, args, kwargs)
                if isinstance(result, GeneratorType | AsyncGeneratorType):
                    self._refuse_generator(exchange, meta)
                else:
                    exchange.result(dump(result, meta.result_serialization))
        except asyncio.CancelledError:
            _cancel_children(context)
            exchange.fail(ErrorKind.CANCELLED, b"")
        except SerializationError as error:
            exchange.fail(ErrorKind.BAD_REQUEST, str(error).encode())
        except BaseException as error:  # noqa: BLE001 - the request's boundary: user code raises anything
            self._call_error(exchange, meta, error)
        finally:
            slot.leave()

    def _call_error(self, exchange: CallExchange, meta: CallMeta, error: BaseException) -> None:
        if type(error) is ServeError and not self.user.has_method(meta.method) and meta.method != "__call__":
            exchange.fail(ErrorKind.NO_SUCH_METHOD, str(error).encode())
            return
        logger.error("call of %s failed", meta.method, exc_info=error)
        exchange.fail(ErrorKind.TASK, dump_error(error))

    def _refuse_generator(self, exchange: CallExchange, meta: CallMeta) -> None:
        exchange.wrong_call(
            f"method {meta.method!r} of deployment {self.deployment!r} is a generator; call it through "
            "handle.options(stream=True)"
        )

    async def _stream(
        self,
        exchange: CallExchange,
        method: Method,
        slot: _Slot,
        meta: CallMeta,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        serialization = meta.result_serialization
        items = await self._run(method, slot, args, kwargs)
        if isinstance(items, AsyncIterator):
            try:
                async for item in items:
                    await exchange.item(dump(item, serialization))
            finally:
                if isinstance(items, AsyncGeneratorType):
                    await items.aclose()
        elif isinstance(items, Iterator):
            try:
                while (item := await self._in_thread(slot, next, items, _END)) is not _END:
                    await exchange.item(dump(item, serialization))
            finally:
                # One that still runs in its thread refuses this, and is closed when that thread drops it.
                if isinstance(items, GeneratorType):
                    self.user.submit(items.close)
        else:
            exchange.wrong_call(
                f"method {meta.method!r} of deployment {self.deployment!r} is no generator; "
                "call it without stream=True"
            )
            return
        exchange.end()

    async def _run(self, method: Method, slot: _Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method.is_async:
            return await method.function(*args, **kwargs)
        if method.is_generator or method.is_async_generator:
            return method.function(*args, **kwargs)
        result = await self._in_thread(slot, method.function, *args, **kwargs)
        if hasattr(result, "__await__"):
            return await result
        return result

    async def _in_thread(self, slot: _Slot, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        future = self.user.submit(function, *args, **kwargs)
        try:
            result, error = await asyncio.wrap_future(future, loop=self.loop)
        except asyncio.CancelledError:
            if not future.cancelled() and not future.done():
                # The caller is released now; the slot when the thread, which nothing can stop, returns.
                slot.leave_later()
                future.add_done_callback(lambda _: self.loop.call_soon_threadsafe(slot.leave))
            raise
        if error is not None:
            raise error
        return result


_END = object()


class _Slot:
    """A request's place among `max_ongoing_requests`; left exactly once."""

    __slots__ = ("_is_late", "_is_left", "_replica")

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._is_left = False
        self._is_late = False

    def leave_later(self) -> None:
        """Make the next `leave` wait for the one after it: a thread still works for the request."""
        self._is_late = True

    def leave(self) -> None:
        """Give the place back."""
        if self._is_late:
            self._is_late = False
            return
        if not self._is_left:
            self._is_left = True
            self._replica._free_slot()  # noqa: SLF001 - the other half of this class


def _cancel_children(context: RequestContext) -> None:
    for call in list(context.children or ()):
        call.cancel()
