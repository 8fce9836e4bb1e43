"""A client that sends exactly the bytes it is told, and reads answers strictly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from trygon.protocols.http import HttpServer, HttpSettings
from trygon.testing.gateway import FakeGateway

__all__ = ["Client", "Lab", "Reply", "lab"]

DEADLINE_S = 10.0


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    #: Sizes of the chunks, for a chunked answer.
    chunks: tuple[int, ...] = ()

    def __getitem__(self, name: str) -> str:
        (value,) = (value for held, value in self.headers if held == name)
        return value

    def __contains__(self, name: str) -> bool:
        return any(held == name for held, _ in self.headers)


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        async with asyncio.timeout(DEADLINE_S):
            await self.writer.drain()

    async def get(self, target: str = "/", *lines: str) -> Reply:
        """Send a GET and read its answer."""
        await self.send("\r\n".join((f"GET {target} HTTP/1.1", "Host: a", *lines, "", "")).encode())
        return await self.reply()

    async def post(self, target: str, body: bytes, *lines: str) -> Reply:
        """Send a POST with a length and read its answer."""
        head = "\r\n".join(
            (f"POST {target} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, "", "")
        )
        await self.send(head.encode() + body)
        return await self.reply()

    async def trickle(self, data: bytes, size: int, every_s: float) -> None:
        """Send `data` slowly, in parts of `size`: what a slow client does is wait."""
        for start in range(0, len(data), size):
            await self.send(data[start : start + size])
            await asyncio.sleep(every_s)

    async def read_slowly(self, size: int, every_s: float, for_s: float) -> bytes:
        """Read to the end, slowly for the first `for_s` seconds."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        parts = []
        while part := await self.reader.read(size):
            parts.append(part)
            if loop.time() - start < for_s:
                await asyncio.sleep(every_s)
        return b"".join(parts)

    async def head(self) -> Reply:
        """Read an answer up to its body."""
        async with asyncio.timeout(DEADLINE_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = raw[:-4].decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [(name, value) for name, _, value in (held.partition(": ") for held in lines)]
        assert all(name == name.lower() and name for name, _ in headers), headers
        return Reply(int(status), headers, b"")

    async def reply(self, *, has_body: bool = True) -> Reply:
        """Read one answer whole."""
        reply = await self.head()
        if not has_body or reply.status in (204, 304) or reply.status < 200:
            return reply
        async with asyncio.timeout(DEADLINE_S):
            if "transfer-encoding" in reply:
                assert "content-length" not in reply
                return await self._chunked(reply)
            if "content-length" in reply:
                body = await self.reader.readexactly(int(reply["content-length"]))
            else:
                assert "close" == reply["connection"]
                body = await self.reader.read()
        return Reply(reply.status, reply.headers, body)

    async def _chunked(self, reply: Reply) -> Reply:
        parts = []
        while True:
            size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
            part = await self.reader.readexactly(size)
            assert b"\r\n" == await self.reader.readexactly(2)
            if not size:
                return Reply(reply.status, reply.headers, b"".join(parts), tuple(map(len, parts)))
            parts.append(part)

    async def end(self) -> bytes:
        """Read until the server closes, and return what came."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read()

    async def frame(self) -> tuple[int, bytes]:
        """Read one websocket frame of a server."""
        async with asyncio.timeout(DEADLINE_S):
            first, second = await self.reader.readexactly(2)
            assert first & 0x80
            assert not second & 0x80
            size = second
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, BrokenPipeError):
            pass

    def reset(self) -> None:
        """Drop the connection at once."""
        self.writer.transport.abort()


class Lab:
    """A server over a `FakeGateway` and the clients of one test."""

    def __init__(self, server: HttpServer, gateway: FakeGateway, sock: socket.socket) -> None:
        self.server = server
        self.gateway = gateway
        self.port: int = sock.getsockname()[1]
        self.clients: list[Client] = []

    async def connect(self, *, receive_buffer: int = 0) -> Client:
        """Open a raw connection."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def until(self, condition: Any, what: str) -> None:
        """Wait until a condition of server or gateway holds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_S
        while not condition():
            assert loop.time() < deadline, f"waited in vain for {what}: {self.server.statistics()}"
            await asyncio.sleep(0.005)


@asynccontextmanager
async def lab(gateway: FakeGateway | None = None, log_fd: int = 2, **settings: Any) -> AsyncIterator[Lab]:
    """Serve a gateway on a free port of the loopback for the time of a test."""
    gateway = gateway or FakeGateway()
    settings.setdefault("sweep_s", 0.05)
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = HttpServer(
        sock, gateway, HttpSettings(**settings), loop=asyncio.get_running_loop(), access_log_fd=log_fd
    )
    server.start()
    held = Lab(server, gateway, sock)
    try:
        yield held
    finally:
        for client in held.clients:
            await client.close()
        await server.drain(2.0)
        sock.close()
        assert 0 == server.statistics().connections
        assert 0 == server.statistics().buffered_bytes
