"""Requests from outside inside a replica: run the user's callable or ASGI application, send what it returns."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp

from trygon.dataplane.asgi import HttpChannel, run_http, run_websocket
from trygon.dataplane.context import RequestContext, request_context
from trygon.dataplane.exchanges import Carrier, HttpExchange
from trygon.dataplane.frames import FrameFlag
from trygon.dataplane.http_call import retry_after
from trygon.dataplane.messages import ErrorKind, HttpMeta
from trygon.dataplane.replica_metrics import ReplicaMetrics
from trygon.dataplane.requests import HttpRequest, http_scope, websocket_scope
from trygon.dataplane.results import convert
from trygon.dataplane.slots import Slot, Slots
from trygon.dataplane.stamps import monotonic
from trygon.dataplane.user_callable import UserCallable
from trygon.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    PoisonRequestError,
    ReplicaDiedError,
    RequestTimeoutError,
)

__all__ = ["HttpRunner"]

logger = logging.getLogger("ray.serve")

_MORE = int(FrameFlag.MORE)

_TEXT_HEAD = b"content-type: text/plain; charset=utf-8\r\n"
_ERROR_BODY = b"Internal Server Error"

_decode = msgspec.msgpack.Decoder(HttpMeta).decode


class HttpRunner:
    """Runs each request as a task on the replica's loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, user: UserCallable, slots: Slots, *, app_name: str
    ) -> None:
        self._loop = loop
        self._user = user
        self._slots = slots
        self._app_name = app_name
        #: Where each request is counted; None counts none.
        self.metrics: ReplicaMetrics | None = None
        #: The application to run, or None when user code takes a Request.
        self._asgi_app: ASGIApp | None = None
        #: What the application's lifespan put into its state.
        self._state: dict[str, Any] = {}

    def set_asgi_app(self, app: ASGIApp, state: dict[str, Any]) -> None:
        """Answer requests with `app`; each request gets a copy of its lifespan state."""
        self._asgi_app = app
        self._state = state

    def begin(self, carrier: Carrier, stream: int, flags: int, head: bytes, body: bytes, sent: int) -> None:
        """Start a request; the caller has seen that there is a slot, `sent` is its stamp."""
        meta = _decode(head)
        exchange = HttpExchange(carrier, stream, body, more=bool(flags & _MORE))
        exchange.is_websocket = meta.is_websocket
        carrier.exchanges[stream] = exchange
        exchange.task = self._loop.create_task(self._serve(exchange, meta, self._slots.take(sent)))

    async def _serve(self, exchange: HttpExchange, meta: HttpMeta, slot: Slot) -> None:
        context = RequestContext(
            meta.route, meta.request_id, self._app_name, meta.model_id, meta.session_id, is_http_request=True
        )
        context.deadline = meta.deadline
        request_context.set(context)
        began = monotonic()
        is_error = False
        try:
            if meta.deadline:
                context.refuse_late()
            await self._run(exchange, meta, slot)
        except asyncio.CancelledError as error:
            context.cancel_children()
            if self._slots.is_ending:
                exchange.fail(ErrorKind.UNAVAILABLE, b"the replica ended before this request was done")
            elif exchange.is_gone:
                exchange.fail(ErrorKind.CANCELLED, b"")
            else:
                # Nobody cancelled this request: user code awaited something that was.
                is_error = True
                self._fail(exchange, context, error)
        except BaseException as error:  # noqa: BLE001 - the request's boundary: user code raises anything
            is_error = True
            self._fail(exchange, context, error)
        finally:
            if exchange.is_left_open:
                # Returned in the middle of its answer: the client must not wait for the rest.
                exchange.fail(ErrorKind.TASK, b"")
            slot.leave(wasted_since=began if exchange.is_gone else 0.0)
            context.end()
            if self.metrics is not None:
                self.metrics.note(meta.route, slot, began, is_error=is_error)

    async def _run(self, exchange: HttpExchange, meta: HttpMeta, slot: Slot) -> None:
        app = self._asgi_app
        if exchange.is_gone:
            raise asyncio.CancelledError
        if meta.is_websocket:
            await self._serve_websocket(exchange, meta)
        elif app is None:
            await self._answer(exchange, meta, slot)
        else:
            if exchange.more:
                exchange.accept_body()
            await run_http(app, http_scope(meta, self._state), exchange)
            if not exchange.has_started and not exchange.is_ended:
                raise RuntimeError("the application returned without an answer")

    async def _serve_websocket(self, exchange: HttpExchange, meta: HttpMeta) -> None:
        if self._asgi_app is None:
            exchange.respond(
                403, _TEXT_HEAD, b"This deployment takes no websockets; use serve.ingress with a FastAPI app."
            )
            return
        await run_websocket(self._asgi_app, websocket_scope(meta, self._state), exchange)

    async def _answer(self, exchange: HttpExchange, meta: HttpMeta, slot: Slot) -> None:
        """Call user code with a Request and send what it returns."""
        method = self._user.method("__call__")
        scope = http_scope(meta, self._state)
        if exchange.more:
            exchange.accept_body()
        args: tuple[Any, ...] = ()
        if method.takes_argument:
            receive = HttpChannel(exchange).receive
            args = (HttpRequest(scope, receive, None if exchange.more else exchange.body),)
        result = await self._user.run(method, slot, args, {})
        if slot.sent:
            slot.computed = monotonic()
        if isinstance(result, Response):
            await run_http(result, scope, exchange)
        elif method.is_generator or method.is_async_generator or hasattr(result, "__anext__"):
            raise TypeError(
                f"deployment {self._user.name!r} answered an HTTP request with a generator; "
                "return a StreamingResponse of it"
            )
        else:
            head, body = convert(result)
            exchange.respond(200, head, body)

    def _fail(self, exchange: HttpExchange, context: RequestContext, error: BaseException) -> None:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, BackPressureError) and not exchange.has_started:
            head = _TEXT_HEAD + b"retry-after: %d\r\n" % max(1, math.ceil(retry_after(cause)))
            exchange.respond(cause.status_code, head, cause.message.encode())
            return
        if isinstance(cause, DeploymentUnavailableError | ReplicaDiedError) and not exchange.has_started:
            status = 502 if isinstance(cause, ReplicaDiedError) else 503
            head = _TEXT_HEAD
            if isinstance(cause, PoisonRequestError):
                head += b"retry-after: %d\r\n" % max(1, math.ceil(cause.retry_after_s))
            exchange.respond(status, head, str(cause).encode())
            return
        if isinstance(cause, RequestTimeoutError) and not exchange.has_started:
            # Of its own time the ingress has told the client.
            status = 408 if context.is_late else 504
            exchange.respond(status, _TEXT_HEAD, str(cause).encode())
            return
        if exchange.is_websocket:
            # A client that left in the middle of a send is no failure of the application's.
            level = logging.DEBUG if exchange.is_gone or exchange.is_closed else logging.ERROR
            logger.log(level, "websocket failed", exc_info=error)
            return
        logger.error("request failed", exc_info=error)
        if exchange.has_started:
            exchange.fail(ErrorKind.TASK, b"")
        else:
            exchange.respond(500, _TEXT_HEAD, _ERROR_BODY)
