"""A gateway without replicas: applications that are plain callbacks, for tests of protocols.

``python -m trygon.testing.gateway --port 8000`` serves it over HTTP, for wrk, fuzzers and slow clients.

Routes: ``/`` answers a constant; ``/echo`` the request's own body; ``/meta`` what arrived, as JSON;
``/stream?n=10&size=100`` a stream under credit; ``/pipe`` the body, piece by piece; ``/status?code=204``;
``/slow?ms=500`` waits; ``/hold`` waits for `FakeGateway.release`; ``/fail?status=503`` fails;
``/ws`` echoes messages; ``/wsdeny`` refuses a handshake.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from trygon.dataplane.frames import FrameFlag
from trygon.dataplane.gateway import Failure, ResponseSink, RouteMatch
from trygon.dataplane.messages import HttpMeta
from trygon.protocols.http import HttpServer, HttpSettings

__all__ = ["FakeGateway", "FakeUpstream", "main"]

_MORE = int(FrameFlag.MORE)
_LENGTH = int(FrameFlag.LENGTH)
_TEXT = int(FrameFlag.TEXT)
_CLOSE = int(FrameFlag.CLOSE)
_UPGRADE = int(FrameFlag.UPGRADE)
_WINDOW_BYTES = 65536
_TYPE = b"content-type: text/plain; charset=utf-8\r\n"
_JSON = b"content-type: application/json\r\n"
_HELLO = b'{"message":"hello"}'


class FakeUpstream:
    """One request as the gateway sees it; tests read its fields and drive its sink."""

    __slots__ = (
        "body",
        "cancelled",
        "closed",
        "credit",
        "done",
        "granted",
        "handler",
        "max_unread",
        "messages",
        "meta",
        "on_credit",
        "parts",
        "sink",
        "unread",
    )

    def __init__(self, meta: HttpMeta, sink: ResponseSink, body: bytes, handler: _Handler) -> None:
        self.meta = meta
        self.sink = sink
        self.handler = handler
        #: The body so far, and the sizes of the pieces it came in.
        self.body = bytearray(body)
        self.parts = [len(body)]
        #: The whole body has arrived.
        self.done = False
        self.cancelled = False
        #: Websocket messages (flags, data), and the close that ended them.
        self.messages: list[tuple[int, bytes]] = []
        self.closed: tuple[int, bytes] | None = None
        self.credit = _WINDOW_BYTES
        self.granted = 0
        self.on_credit: Callable[[], None] | None = None
        #: Bytes taken in and not "consumed"; `send` asks for a pause beyond `max_unread`.
        self.unread = 0
        self.max_unread: int | None = None

    def send(self, data: bytes, flags: int) -> bool:
        """Take more of the body, or a message."""
        if flags & _CLOSE:
            self.closed = (int.from_bytes(data[:2], "big"), data[2:])
            self.done = True
        elif self.meta.is_websocket:
            self.messages.append((flags, data))
        else:
            self.parts.append(len(data))
            self.done = not flags & _MORE
        self.handler(self, data, flags)
        if self.max_unread is None:
            return True
        self.unread += len(data)
        return self.unread <= self.max_unread

    def grant(self, size: int) -> None:
        """Take credit; a stream goes on."""
        self.granted += size
        self.credit += size
        if self.on_credit is not None:
            self.on_credit()

    def cancel(self) -> None:
        """Note that nobody waits; nothing more is answered."""
        self.cancelled = True
        self.on_credit = None


_Handler = Callable[[FakeUpstream, bytes, int], None]
_Opener = Callable[["FakeGateway", FakeUpstream, dict[str, str]], None]


def _nothing(upstream: FakeUpstream, data: bytes, flags: int) -> None:
    upstream.body += data


class FakeGateway:
    """A `Gateway` whose applications live in the same loop.

    Args:
        prefix: Route prefix of the one application; None is "no routes yet".
        keep: Requests remembered in `opened`.
        defer: Answer in the next turn of the loop, as a real gateway does, instead of inside `open`.
    """

    def __init__(self, *, prefix: str | None = "/", defer: bool = False, keep: int = 1000) -> None:
        self.prefix = prefix
        self.defer = defer
        self.loop: asyncio.AbstractEventLoop | None = None
        #: The last requests opened, oldest first.
        self.opened: deque[FakeUpstream] = deque(maxlen=keep)
        self.num_opened = 0
        self.num_cancelled = 0
        self.held: list[FakeUpstream] = []
        self._match = RouteMatch(
            "default", prefix or "/", "" if prefix in (None, "/") else str(prefix), "App", 1
        )
        self._openers = _OPENERS

    def match(self, path: str) -> RouteMatch | None:
        """Return the one application for paths under its prefix."""
        prefix = self.prefix
        if prefix is None:
            return None
        if prefix in ("/", path) or path.startswith(prefix + "/"):
            return self._match
        return None

    def routes(self) -> dict[str, str]:
        """Return the one route, or none."""
        return {} if self.prefix is None else {self.prefix: "default"}

    def health(self) -> tuple[int, str]:
        """Return 200 as soon as there is a route."""
        return (200, "success") if self.prefix is not None else (503, "Route table is not populated yet.")

    def full(self, route: RouteMatch) -> Failure | None:
        """Return None: there is always room."""
        return None

    def open(
        self, route: RouteMatch, meta: HttpMeta, body: bytes, *, more: bool, sink: ResponseSink
    ) -> FakeUpstream:
        """Start the canned application that the path names."""
        upstream = FakeUpstream(meta, sink, body, _nothing)
        upstream.done = not more
        self.num_opened += 1
        self.opened.append(upstream)
        path = meta.path if self.prefix == "/" else meta.path[len(self.prefix or "") :]
        opener = self._openers.get(path, _hello)
        query = (
            {name: values[-1] for name, values in parse_qs(meta.query.decode()).items()} if meta.query else {}
        )
        if self.defer:
            asyncio.get_running_loop().call_soon(self._start, opener, upstream, query)
        else:
            opener(self, upstream, query)
        return upstream

    def _start(self, opener: _Opener, upstream: FakeUpstream, query: dict[str, str]) -> None:
        if not upstream.cancelled:
            opener(self, upstream, query)

    def release(self) -> None:
        """Answer every request held by ``/hold``."""
        held, self.held = self.held, []
        for upstream in held:
            if not upstream.cancelled:
                upstream.sink.on_response(200, 0, _TYPE, b"released")


def _number(query: dict[str, str], name: str, default: int) -> int:
    """Return a number of a query; nonsense, which fuzzers send, is the default."""
    text = query.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


def _hello(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    upstream.sink.on_response(200, 0, _JSON, _HELLO)


def _when_done(upstream: FakeUpstream, answer: Callable[[], None]) -> None:
    if upstream.done:
        answer()
        return

    def handle(upstream: FakeUpstream, data: bytes, flags: int) -> None:
        upstream.body += data
        if upstream.done:
            # The handler refers to the upstream: a fuzzed server must not depend on the garbage collector.
            upstream.handler = _nothing
            answer()

    upstream.handler = handle


def _echo(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    _when_done(upstream, lambda: upstream.sink.on_response(200, 0, _TYPE, bytes(upstream.body)))


def _meta(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    def answer() -> None:
        meta = upstream.meta
        value: dict[str, Any] = {
            "method": meta.method,
            "path": meta.path,
            "raw_path": meta.raw_path.decode(),
            "query": meta.query.decode(),
            "headers": [[name.decode("latin-1"), text.decode("latin-1")] for name, text in meta.headers],
            "request_id": meta.request_id,
            "root_path": meta.root_path,
            "route": meta.route,
            "http_version": meta.http_version,
            "scheme": meta.scheme,
            "client": meta.client,
            "server": meta.server,
            "deadline": meta.deadline,
            "model_id": meta.model_id,
            "session_id": meta.session_id,
            "body": bytes(upstream.body[:1000]).decode("latin-1"),
            "body_size": len(upstream.body),
            "num_parts": len(upstream.parts),
        }
        upstream.sink.on_response(200, 0, _JSON, json.dumps(value).encode())

    _when_done(upstream, answer)


def _stream(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    left = _number(query, "n", 10)
    part = b"x" * _number(query, "size", 100)
    head = _TYPE
    flags = _MORE
    if "length" in query:
        head += b"content-length: %d\r\n" % _number(query, "length", 0)
        flags |= _LENGTH
    # The first part comes with the head, as from a replica.
    upstream.sink.on_response(_number(query, "status", 200), flags, head, b"")
    running = False

    def push() -> None:
        nonlocal left, running
        if running:
            return
        running = True
        while left > 0 and upstream.credit > 0 and not upstream.cancelled:
            left -= 1
            upstream.credit -= len(part)
            if not left:
                upstream.on_credit = None
            upstream.sink.on_data(part, _MORE if left else 0)
        running = False

    upstream.on_credit = push
    if left:
        push()
    else:
        upstream.on_credit = None
        upstream.sink.on_data(b"", 0)


def _pipe(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    upstream.sink.on_response(200, _MORE, _TYPE, bytes(upstream.body))
    upstream.body.clear()
    if upstream.done:
        upstream.sink.on_data(b"", 0)
        return

    def handle(upstream: FakeUpstream, data: bytes, flags: int) -> None:
        upstream.sink.on_data(data, flags & _MORE)

    upstream.handler = handle


def _status(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    body = query.get("body", "").encode()
    head, flags = _TYPE, 0
    if "length" in query:
        head, flags = head + b"content-length: %d\r\n" % _number(query, "length", 0), _LENGTH
    upstream.sink.on_response(_number(query, "code", 200), flags, head, body)


def _slow(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    def answer() -> None:
        if not upstream.cancelled:
            upstream.sink.on_response(200, 0, _TYPE, b"slow")

    asyncio.get_running_loop().call_later(_number(query, "ms", 100) / 1000, answer)


def _hold(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    if query.get("begin"):
        upstream.sink.on_response(200, _MORE, _TYPE, b"begun")
    gateway.held.append(upstream)


def _fail(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    retry = query.get("retry")
    if query.get("begin"):
        upstream.sink.on_response(200, _MORE, _TYPE, b"begun")
    upstream.sink.on_failure(
        Failure(
            _number(query, "status", 500),
            query.get("reason", "failed"),
            _number(query, "retry", 1) if retry else None,
        )
    )


def _ws(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    if not upstream.meta.is_websocket:
        upstream.sink.on_response(200, 0, _TYPE, b"not a websocket")
        return

    def handle(upstream: FakeUpstream, data: bytes, flags: int) -> None:
        if flags & _CLOSE:
            upstream.handler = _nothing
            upstream.sink.on_data(b"", 0)
        elif data == b"close please":
            upstream.sink.on_data((3001).to_bytes(2, "big") + b"as asked", _CLOSE)
        elif data == b"fail please":
            upstream.sink.on_failure(Failure(500, "failed"))
        else:
            upstream.sink.on_data(data, flags)

    upstream.handler = handle
    head = b""
    for name, value in upstream.meta.headers:
        if name == b"sec-websocket-protocol":
            head = b"sec-websocket-protocol: " + value.split(b",")[0].strip() + b"\r\n"
    upstream.sink.on_response(101, _UPGRADE | _MORE, head, b"")


def _wsdeny(gateway: FakeGateway, upstream: FakeUpstream, query: dict[str, str]) -> None:
    upstream.sink.on_response(403, 0, _TYPE, b"denied")


_OPENERS: dict[str, _Opener] = {
    "/echo": _echo,
    "/meta": _meta,
    "/stream": _stream,
    "/pipe": _pipe,
    "/status": _status,
    "/slow": _slow,
    "/hold": _hold,
    "/fail": _fail,
    "/ws": _ws,
    "/wsdeny": _wsdeny,
}


def main(argv: list[str] | None = None) -> None:
    """Serve a `FakeGateway` over HTTP until interrupted."""
    parser = argparse.ArgumentParser(description="Serve canned applications over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--defer", action="store_true", help="answer in the next turn of the loop")
    parser.add_argument("--access-log", action="store_true")
    parser.add_argument("--loop", default="uvloop", help="module with new_event_loop: uvloop, asyncio")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=JSON", help="a field of HttpSettings"
    )
    args = parser.parse_args(argv)
    values = {name: json.loads(text) for name, _, text in (item.partition("=") for item in args.set)}
    settings = HttpSettings(access_log=args.access_log, **values)

    async def serve() -> None:
        sock = socket.create_server((args.host, args.port), backlog=4096)
        loop = asyncio.get_running_loop()
        server = HttpServer(sock, FakeGateway(defer=args.defer, keep=0), settings, loop=loop)
        server.start()
        sys.stdout.write("listening on %s:%d\n" % sock.getsockname()[:2])
        sys.stdout.flush()
        try:
            await asyncio.Event().wait()
        finally:
            await server.drain(1.0)
            sock.close()

    runner = asyncio.Runner(loop_factory=importlib.import_module(args.loop).new_event_loop)
    # As an ingress process: a full collection over ten thousand connections holds the loop for 70 ms, and
    # connections leave no cycles behind.
    gc.freeze()
    gc.set_threshold(10_000, 100, 100)
    with runner:
        try:
            runner.run(serve())
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
