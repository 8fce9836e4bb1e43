"""The seam between the HTTP front and the admin application: judges heads, collects bodies, owns the tasks."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from trygon.dataplane.frames import FrameFlag
from trygon.dataplane.gateway import Failure, ResponseSink, RouteMatch, Upstream
from trygon.dataplane.messages import HttpMeta
from trygon.protocols.admin.access import Access
from trygon.protocols.admin.answers import Answer, failure, head_lines
from trygon.protocols.admin.application import AdminApplication, AdminRequest

__all__ = ["MAX_BODY_BYTES", "AdminGateway"]

logger = logging.getLogger("trygon.admin")

#: A configuration of ten thousand applications has a few megabytes.
MAX_BODY_BYTES: Final = 16 << 20
#: Requests in work; more are refused, since each may hold a body.
_MAX_REQUESTS: Final = 32
_MORE: Final = int(FrameFlag.MORE)
#: The front takes a route for what it hands over; here there is one.
_ROUTE: Final = RouteMatch("", "/", "", "", 0)


class _Done:
    """A request that was answered when it was opened."""

    __slots__ = ()

    def send(self, data: bytes, flags: int) -> bool:
        return True

    def grant(self, size: int) -> None:
        return

    def cancel(self) -> None:
        return


_DONE: Final = _Done()


class _Exchange:
    """One request that passed the checks: its body so far, then the task that answers it."""

    __slots__ = ("_body", "_gateway", "_meta", "_sink", "task")

    def __init__(self, gateway: AdminGateway, meta: HttpMeta, sink: ResponseSink) -> None:
        self._gateway = gateway
        self._meta = meta
        self._sink: ResponseSink | None = sink
        self._body = bytearray()
        self.task: asyncio.Task[None] | None = None

    def send(self, data: bytes, flags: int) -> bool:
        if self._sink is None:
            return True
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            self._answer(_too_large())
        elif not flags & _MORE:
            self._gateway.begin(self)
        return True

    def grant(self, size: int) -> None:
        return

    def cancel(self) -> None:
        self._sink = None
        self._body.clear()
        self._gateway.end(self)

    async def run(self, application: AdminApplication) -> None:
        meta = self._meta
        request = AdminRequest(
            method=meta.method,
            raw_path=meta.raw_path,
            query=meta.query,
            if_match=_header(meta, b"if-match"),
            if_none_match=_header(meta, b"if-none-match"),
            body=bytes(self._body),
        )
        self._body.clear()
        try:
            answer = await application.answer(request)
        except Exception:
            # The boundary of a request: its caller must hear of it, and the port serves on.
            logger.exception("a request failed")
            answer = failure(500, "the admin process failed; its log says why")
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        sink, self._sink = self._sink, None
        self._gateway.end(self)
        if sink is not None:
            sink.on_response(answer.status, 0, head_lines(answer), answer.body)


class AdminGateway:
    """Implements `dataplane.gateway.Gateway` over the admin application.

    Args:
        access: Who may pass.
        application: Who answers.
        loop: The running loop.
    """

    def __init__(
        self, access: Access, application: AdminApplication, *, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._access = access
        self._application = application
        self._loop = loop
        #: Requests with a body or a task.
        self._exchanges: set[_Exchange] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- Gateway

    def match(self, path: str) -> RouteMatch | None:
        return _ROUTE

    def routes(self) -> dict[str, str]:
        return {}

    def health(self) -> tuple[int, str]:
        return 200, "success"

    def full(self, route: RouteMatch) -> Failure | None:
        return None

    def open(
        self, route: RouteMatch, meta: HttpMeta, body: bytes, *, more: bool, sink: ResponseSink
    ) -> Upstream:
        answer = self._judge(meta)
        if answer is not None:
            sink.on_response(answer.status, 0, head_lines(answer), answer.body)
            return _DONE
        exchange = _Exchange(self, meta, sink)
        self._exchanges.add(exchange)
        exchange.send(body, _MORE if more else 0)
        return exchange

    def _judge(self, meta: HttpMeta) -> Answer | None:
        """Return the answer to a request of which nothing but the head is looked at, or None."""
        address = meta.server[0] if meta.server is not None else ""
        refusal = self._access.refuse(meta.method, meta.raw_path, meta.headers, address)
        if refusal is not None:
            return refusal
        if meta.is_websocket:
            return failure(400, "the admin port serves no websockets; send a plain request")
        if int(_header(meta, b"content-length") or 0) > MAX_BODY_BYTES:
            return _too_large()
        if len(self._exchanges) >= _MAX_REQUESTS:
            return failure(
                503,
                f"{_MAX_REQUESTS} requests are in work, and no more are taken; try again",
                headers=(("retry-after", "1"),),
            )
        return None

    # ---- tasks

    def begin(self, exchange: _Exchange) -> None:
        """Answer a request whose body is complete."""
        task = self._loop.create_task(exchange.run(self._application))
        exchange.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, exchange: _Exchange) -> None:
        """Forget a request that was answered, or that nobody waits for."""
        self._exchanges.discard(exchange)
        task = exchange.task
        if task is not None and task is not asyncio.current_task(self._loop):
            task.cancel()

    async def close(self) -> None:
        """End what is still in work."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _header(meta: HttpMeta, name: bytes) -> str | None:
    """Return a header's value, several joined as RFC 9110 says; None without it."""
    values = [value for found, value in meta.headers if found == name]
    return b", ".join(values).decode("latin-1") if values else None


def _too_large() -> Answer:
    return failure(413, f"the body is larger than {MAX_BODY_BYTES} bytes, which are all that are taken")
