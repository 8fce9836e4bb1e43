"""Handle calls inside a replica: find the method, run it, send its result or its items."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from types import AsyncGeneratorType, GeneratorType
from typing import Any

import msgspec

from trygon.dataplane.context import RequestContext, request_context
from trygon.dataplane.exchanges import CallExchange, Carrier
from trygon.dataplane.frames import FrameFlag
from trygon.dataplane.messages import CallMeta, ErrorKind
from trygon.dataplane.payloads import dump, load
from trygon.dataplane.replica_metrics import ReplicaMetrics
from trygon.dataplane.slots import Slot, Slots
from trygon.dataplane.stamps import monotonic
from trygon.dataplane.task_errors import dump_error
from trygon.dataplane.user_callable import UserCallable
from trygon.errors import RequestTimeoutError, SerializationError, ServeError
from trygon.observability.access_log import AccessLog
from trygon.observability.logs import LogContext

__all__ = ["CallRunner"]

logger = logging.getLogger("ray.serve")

_STREAM = int(FrameFlag.STREAM)
_END = object()

_decode = msgspec.msgpack.Decoder(CallMeta).decode


class CallRunner:
    """Runs each call as a task on the replica's loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, user: UserCallable, slots: Slots, *, app_name: str
    ) -> None:
        self._loop = loop
        self._user = user
        self._slots = slots
        self._app_name = app_name
        #: Where a line for each finished call goes; None writes none.
        self.access_log: AccessLog | None = None
        #: Where each call is counted; None counts none.
        self.metrics: ReplicaMetrics | None = None

    def begin(self, carrier: Carrier, stream: int, flags: int, head: bytes, body: bytes, sent: int) -> None:
        """Start a call; the caller has seen that there is a slot, `sent` is its stamp."""
        exchange = CallExchange(carrier, stream, flags)
        carrier.exchanges[stream] = exchange
        # Decoded first: what cannot be decoded must take no slot.
        meta = _decode(head)
        exchange.task = self._loop.create_task(self._serve(exchange, meta, body, self._slots.take(sent)))

    async def _serve(self, exchange: CallExchange, meta: CallMeta, body: bytes, slot: Slot) -> None:
        context = RequestContext(meta.route, meta.request_id, self._app_name, meta.model_id, meta.session_id)
        context.deadline = meta.deadline
        request_context.set(context)
        began = monotonic()
        outcome = "ERROR"
        try:
            if meta.deadline:
                context.refuse_late()
            await self._run(exchange, meta, body, slot)
            outcome = "OK"
        except asyncio.CancelledError:
            outcome = "CANCELLED"
            context.cancel_children()
            exchange.fail(ErrorKind.CANCELLED, b"")
        except SerializationError as error:
            exchange.fail(ErrorKind.BAD_REQUEST, str(error).encode())
        except BaseException as error:  # noqa: BLE001 - the request's boundary: user code raises anything
            if isinstance(error, RequestTimeoutError) and context.is_late:
                exchange.fail(ErrorKind.TIMEOUT, str(error).encode())
            else:
                self._fail(exchange, meta, error)
        finally:
            slot.leave(wasted_since=began if exchange.is_gone else 0.0)
            context.end()
            if self.metrics is not None:
                self.metrics.note(meta.route, slot, began, is_error=outcome == "ERROR")
            if self.access_log is not None:
                latency_ms = (monotonic() - began) * 1e3
                self.access_log.call(
                    meta.method, outcome, latency_ms, LogContext(meta.request_id, meta.route, self._app_name)
                )

    async def _run(self, exchange: CallExchange, meta: CallMeta, body: bytes, slot: Slot) -> None:
        if exchange.is_gone:
            raise asyncio.CancelledError
        method = self._user.method(meta.method)
        args, kwargs = load(body, meta.payload)
        if exchange.flags & _STREAM:
            await self._stream(exchange, meta, slot, await self._user.run(method, slot, args, kwargs))
        elif method.is_generator or method.is_async_generator:
            self._refuse_generator(exchange, meta)
        else:
            result = await self._user.run(method, slot, args, kwargs)
            if slot.sent:
                slot.computed = monotonic()
            if isinstance(result, GeneratorType | AsyncGeneratorType):
                self._refuse_generator(exchange, meta)
            else:
                exchange.result(dump(result, meta.result_serialization))

    async def _stream(self, exchange: CallExchange, meta: CallMeta, slot: Slot, items: Any) -> None:
        serialization = meta.result_serialization
        if isinstance(items, AsyncIterator):
            try:
                async for item in items:
                    await exchange.item(dump(item, serialization))
            finally:
                if isinstance(items, AsyncGeneratorType):
                    await items.aclose()
        elif isinstance(items, Iterator):
            try:
                while (item := await self._user.run_in_thread(slot, next, items, _END)) is not _END:
                    await exchange.item(dump(item, serialization))
            finally:
                self._close(slot, items)
        else:
            exchange.wrong_call(
                f"method {meta.method!r} of deployment {self._user.name!r} is no generator; "
                "call it without stream=True"
            )
            return
        exchange.end()

    def _close(self, slot: Slot, items: Iterator[Any]) -> None:
        """Close a synchronous generator in a thread, after the one that may still run it.

        Its `finally` is user code too, so the slot is left only after it.
        """
        if not isinstance(items, GeneratorType) or items.gi_frame is None:
            return
        working = slot.working
        if working is None or working.done():
            slot.leave_after(self._user.submit(items.close), self._loop)
            return
        closing: Future[None] = Future()

        def close(_: Future[Any]) -> None:
            try:
                items.close()
            finally:
                closing.set_result(None)

        working.add_done_callback(close)
        slot.leave_after(closing, self._loop)

    def _refuse_generator(self, exchange: CallExchange, meta: CallMeta) -> None:
        exchange.wrong_call(
            f"method {meta.method!r} of deployment {self._user.name!r} is a generator; call it through "
            "handle.options(stream=True)"
        )

    def _fail(self, exchange: CallExchange, meta: CallMeta, error: BaseException) -> None:
        if type(error) is ServeError and not self._user.has_method(meta.method) and meta.method != "__call__":
            exchange.fail(ErrorKind.NO_SUCH_METHOD, str(error).encode())
            return
        logger.error("call of %s failed", meta.method, exc_info=error)
        exchange.fail(ErrorKind.TASK, dump_error(error))
