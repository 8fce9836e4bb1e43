"""Runs an ASGI application, or a Starlette response, on an exchange."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from trygon.dataplane.exchanges import HttpExchange
from trygon.dataplane.frames import MAX_FRAME_BYTES, FrameFlag
from trygon.dataplane.results import header_block

__all__ = ["HttpChannel", "Lifespan", "WebSocketChannel", "run_http", "run_websocket"]

_MORE = int(FrameFlag.MORE)
_TEXT = int(FrameFlag.TEXT)
_CLOSE = int(FrameFlag.CLOSE)
_LENGTH = int(FrameFlag.LENGTH)
_UPGRADE = int(FrameFlag.UPGRADE)

#: A larger part of a body leaves in pieces: a slow client is noticed between them.
_PIECE_BYTES = 1024 * 1024

_DISCONNECT: Message = {"type": "http.disconnect"}
_code = struct.Struct(">H")

#: RFC 6455 section 7.4.1: no status was in the close frame; the connection was lost.
_NO_STATUS, _ABNORMAL = 1005, 1006


class HttpChannel:
    """The `receive` and `send` of one HTTP request."""

    __slots__ = ("_body_given", "_exchange", "_flags", "_head", "_status")

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange
        self._body_given = False
        #: Set by http.response.start, sent with the first part of the body.
        self._head: bytes | None = None
        self._status = 200
        self._flags = 0

    async def receive(self) -> Message:
        """Give the body, then wait for the client to go."""
        exchange = self._exchange
        if not self._body_given:
            self._body_given = True
            if exchange.body or not exchange.more:
                return {"type": "http.request", "body": exchange.body, "more_body": exchange.more}
        if (exchange.inbox or exchange.more) and await exchange.wait_inbox():
            data, flags = exchange.take()
            return {"type": "http.request", "body": data, "more_body": bool(flags & _MORE)}
        await exchange.wait_gone()
        return _DISCONNECT

    async def send(self, message: Message) -> None:
        """Send the head and the body parts, no faster than the client takes them."""
        exchange = self._exchange
        kind = message["type"]
        if kind == "http.response.body":
            await self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start":
            if self._head is not None or exchange.has_started:
                raise RuntimeError("the application started its response twice")
            self._status = message["status"]
            self._head, has_length = header_block(message.get("headers", ()))
            self._flags = _LENGTH if has_length else 0
        elif kind not in ("http.response.trailers", "http.response.debug"):
            raise RuntimeError(f"the application sent {kind!r}, which HTTP does not have")

    async def _send_body(self, body: bytes, more: bool) -> None:
        exchange = self._exchange
        head = self._head
        if head is not None:
            self._head = None
            if not more:
                exchange.respond(self._status, head, bytes(body), has_length=bool(self._flags))
                return
            exchange.start(self._status, head, bytes(body[:_PIECE_BYTES]), self._flags)
            body = body[_PIECE_BYTES:]
            if not body:
                return
        if not exchange.has_started:
            raise RuntimeError("the application sent a body before http.response.start")
        if exchange.is_ended or exchange.is_gone:
            if exchange.is_gone:
                # What ASGI 2.4 asks for: the server says that the client is gone.
                raise OSError("the client is gone")
            return
        while len(body) > _PIECE_BYTES:
            await self._send_piece(body[:_PIECE_BYTES], _MORE)
            body = body[_PIECE_BYTES:]
        await self._send_piece(body, _MORE if more else 0)

    async def _send_piece(self, piece: bytes, flags: int) -> None:
        exchange = self._exchange
        if exchange.window <= 0 or exchange.connection.is_paused:
            await exchange.wait_room()
        exchange.send_part(bytes(piece), flags)


async def run_http(app: ASGIApp, scope: Scope, exchange: HttpExchange) -> None:
    """Run an application until it returns; one that never answered is the caller's to judge."""
    channel = HttpChannel(exchange)
    await app(scope, channel.receive, channel.send)


class WebSocketChannel:
    """The `receive` and `send` of one websocket."""

    __slots__ = ("_exchange", "_has_closed", "_is_accepted", "_is_connected", "_refusal")

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange
        self._is_connected = False
        self._is_accepted = False
        self._has_closed = False
        #: Status, head and flags of a refusal in the application's own words.
        self._refusal: tuple[int, bytes, bool] | None = None

    async def receive(self) -> Message:
        """Give the connect, then messages, then the disconnect."""
        exchange = self._exchange
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        if not await exchange.wait_inbox():
            return {"type": "websocket.disconnect", "code": _ABNORMAL, "reason": ""}
        data, flags = exchange.take()
        if flags & _CLOSE:
            code = _code.unpack_from(data)[0] if len(data) >= _code.size else _NO_STATUS
            reason = data[_code.size :].decode("utf-8", "replace")
            self._has_closed = True
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        if flags & _TEXT:
            return {"type": "websocket.receive", "text": data.decode("utf-8")}
        return {"type": "websocket.receive", "bytes": data}

    async def send(self, message: Message) -> None:
        """Accept or refuse, then send messages and the close."""
        kind = message["type"]
        if not self._is_accepted:
            await self._answer_handshake(kind, message)
            return
        exchange = self._exchange
        if kind == "websocket.send":
            if exchange.window <= 0 or exchange.connection.is_paused:
                await exchange.wait_room()
            if exchange.is_gone or exchange.is_ended or exchange.is_closed or self._has_closed:
                raise OSError("the client is gone")
            text = message.get("text")
            data = bytes(message["bytes"]) if text is None else text.encode()
            if len(data) > MAX_FRAME_BYTES:
                raise ValueError(
                    f"a websocket message of {len(data)} bytes is larger than {MAX_FRAME_BYTES}; send it in parts"
                )
            exchange.send_part(data, _MORE if text is None else _MORE | _TEXT)
        elif kind == "websocket.close":
            self.close(message.get("code") or 1000, message.get("reason") or "")
        else:
            raise RuntimeError(f"the application sent {kind!r} on an accepted websocket")

    async def _answer_handshake(self, kind: str, message: Message) -> None:
        exchange = self._exchange
        if kind == "websocket.accept":
            headers = list(message.get("headers", ()))
            if message.get("subprotocol"):
                headers.append((b"sec-websocket-protocol", message["subprotocol"].encode("latin-1")))
            head, _ = header_block(headers)
            exchange.start(101, head, b"", _UPGRADE)
            self._is_accepted = True
        elif kind == "websocket.close":
            exchange.respond(403, b"content-length: 0\r\n", b"", has_length=True)
        elif kind == "websocket.http.response.start":
            head, has_length = header_block(message.get("headers", ()))
            self._refusal = (message["status"], head, has_length)
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            status, head, has_length = self._refusal
            exchange.respond(status, head, bytes(message.get("body", b"")), has_length=has_length)
        else:
            raise RuntimeError(f"the application sent {kind!r} before it accepted the websocket")

    def close(self, code: int, reason: str = "") -> None:
        """Send the close; what comes after it is ignored."""
        self._has_closed = True
        self._exchange.send_part(_code.pack(code) + reason.encode()[:123], _CLOSE)

    def fail(self) -> None:
        """End the websocket because user code raised: 500 before the handshake, 1011 after."""
        if not self._is_accepted:
            self._exchange.respond(
                500, b"content-type: text/plain; charset=utf-8\r\n", b"Internal Server Error"
            )
        elif not self._has_closed:
            self.close(1011)


async def run_websocket(app: ASGIApp, scope: Scope, exchange: HttpExchange) -> None:
    """Run an application until it returns, then close what it left open."""
    channel = WebSocketChannel(exchange)
    exchange.accept_body()
    try:
        await app(scope, channel.receive, channel.send)
    except BaseException:
        if not exchange.is_gone:
            channel.fail()
        raise
    if not exchange.is_ended:
        if exchange.has_started:
            channel.close(1000)
        else:
            channel.fail()


class Lifespan:
    """Runs an application's startup and shutdown; an application without lifespan is fine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._answer: asyncio.Future[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._is_supported = True
        self.state: dict[str, Any] = {}

    async def startup(self) -> None:
        """Run the startup part.

        Raises:
            RuntimeError: The application said that its startup failed.
        """
        self._task = asyncio.get_running_loop().create_task(self._run())
        failure = await self._ask("lifespan.startup")
        if failure:
            raise RuntimeError(f"the application's lifespan startup failed: {failure}") from self._error

    async def shutdown(self) -> None:
        """Run the shutdown part, if the startup part ran."""
        if self._task is None or not self._is_supported:
            return
        await self._ask("lifespan.shutdown")
        await asyncio.wait([self._task])

    async def _ask(self, kind: str) -> str:
        if self._task is None or self._task.done():
            return ""
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._to_app.put_nowait({"type": kind})
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            failure: str = answer.result()
            return failure
        # It returned or raised without an answer: it does not know lifespan (ASGI says: go on).
        self._is_supported = False
        return ""

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._to_app.get, self._send)
        except Exception as error:  # noqa: BLE001 - an application without lifespan may raise anything
            self._error = error

    async def _send(self, message: Message) -> None:
        answer = self._answer
        if answer is None or answer.done():
            return
        if message["type"].endswith(".complete"):
            answer.set_result("")
        elif message["type"].endswith(".failed"):
            answer.set_result(message.get("message") or "no reason given")
