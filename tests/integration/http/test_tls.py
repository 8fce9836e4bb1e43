"""The HTTP front over TLS: who is let in, what a handshake may cost, and certificates that change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import websockets

from tests.certificates import Authority
from tests.integration.http.client import Client
from trygon.protocols.http import HttpServer, HttpSettings
from trygon.protocols.http.tls import Certificates, TlsFiles
from trygon.testing.gateway import FakeGateway

pytestmark = pytest.mark.anyio


class Door:
    """A server that speaks TLS, and a way in."""

    def __init__(self, authority: Authority, server: HttpServer, port: int) -> None:
        self.authority = authority
        self.server = server
        self.port = port

    async def connect(self, context: ssl.SSLContext | None = None) -> Client:
        """Open a connection."""
        async with asyncio.timeout(10):
            return Client(
                *await asyncio.open_connection(
                    "127.0.0.1",
                    self.port,
                    ssl=context or self.authority.client(),
                    server_hostname="localhost",
                )
            )

    async def serial(self) -> str:
        """Return the serial number of the certificate that a new connection gets."""
        client = await self.connect()
        try:
            return str(client.writer.get_extra_info("peercert")["serialNumber"])
        finally:
            await client.close()


@asynccontextmanager
async def door(folder: Path, *, has_mutual: bool = False, **settings: object) -> AsyncIterator[Door]:
    """Serve a `FakeGateway` over TLS; certificates are looked at with each connection."""
    authority = Authority(folder)
    files: TlsFiles = authority.write()
    if has_mutual:
        files = msgspec.structs.replace(files, ca_certs=str(authority.ca_certs))
    looks = iter(range(1_000_000))
    certificates = Certificates(files, lambda: 10.0 * next(looks))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = HttpServer(
            sock,
            FakeGateway(),
            HttpSettings(scheme="https", **settings),  # type: ignore[arg-type]
            loop=asyncio.get_running_loop(),
            tls=certificates.context,
        )
        server.start()
        try:
            yield Door(authority, server, sock.getsockname()[1])
        finally:
            await server.drain(1.0)


async def is_answered(tls: Door, context: ssl.SSLContext) -> bool:
    """Whether a client gets in; with TLS 1.3 it hears that it does not only when it reads."""
    refusals = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)
    try:
        client = await tls.connect(context)
    except refusals:
        return False
    try:
        return (await client.get()).status == 200
    except refusals:
        return False
    finally:
        with contextlib.suppress(ssl.SSLError):
            await client.close()


async def test_requests_are_answered_and_applications_see_https(tmp_path: Path) -> None:
    async with door(tmp_path) as tls:
        client = await tls.connect()
        first, meta = await client.get(), await client.get("/meta")
        await client.close()

    assert 200 == first.status
    assert "https" == json.loads(meta.body)["scheme"]


async def test_websockets_work(tmp_path: Path) -> None:
    async with (
        door(tmp_path) as tls,
        websockets.connect(f"wss://localhost:{tls.port}/ws", ssl=tls.authority.client()) as ws,
    ):
        await ws.send("hello")
        assert "hello" == await ws.recv()


async def test_a_stream_and_a_large_body_pass_whole(tmp_path: Path) -> None:
    async with door(tmp_path) as tls:
        client = await tls.connect()
        stream = await client.get("/stream?n=50&size=20000")
        echo = await client.post("/echo", b"x" * 1_000_000)
        await client.close()

    assert 1_000_000 == len(stream.body)
    assert 1_000_000 == len(echo.body)


async def test_plain_http_gets_no_answer_and_does_no_harm(tmp_path: Path) -> None:
    async with door(tmp_path) as tls:
        plain = Client(*await asyncio.open_connection("127.0.0.1", tls.port))
        await plain.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            told = await plain.end()
        except ConnectionResetError:
            told = b""
        await plain.close()
        client = await tls.connect()
        assert 200 == (await client.get()).status
        await client.close()

    assert not told.startswith(b"HTTP")


async def test_old_protocols_are_refused(tmp_path: Path) -> None:
    async with door(tmp_path) as tls:
        old = tls.authority.client()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await tls.connect(old)


async def test_a_client_without_a_certificate_is_refused_when_an_authority_is_named(tmp_path: Path) -> None:
    async with door(tmp_path, has_mutual=True) as tls:
        known = await tls.connect(tls.authority.client(has_certificate=True))
        assert 200 == (await known.get()).status
        await known.close()
        (tmp_path / "stranger").mkdir()
        stranger = Authority(tmp_path / "stranger").client(has_certificate=True)
        stranger.load_verify_locations(str(tls.authority.ca_certs))
        for context in (tls.authority.client(), stranger):
            assert not await is_answered(tls, context)

        assert 1 == tls.server.statistics().requests["2xx"]


async def test_new_connections_get_the_new_certificate_and_open_ones_live_on(tmp_path: Path) -> None:
    async with door(tmp_path) as tls:
        client = await tls.connect()
        before = await tls.serial()
        tls.authority.write()
        after = await tls.serial()
        (tmp_path / "cert.pem").write_text("broken")
        kept = await tls.serial()
        answer = await client.get()
        await client.close()

    assert before != after == kept
    assert 200 == answer.status


async def test_handshakes_that_never_end_give_way_to_newcomers(tmp_path: Path) -> None:
    async with door(tmp_path, max_connections=4) as tls:
        stalled = [await asyncio.open_connection("127.0.0.1", tls.port) for _ in range(12)]
        client = await tls.connect()
        assert 200 == (await client.get()).status
        await client.close()

        assert tls.server.statistics().shed
        for _, writer in stalled:
            writer.close()


async def test_a_handshake_has_a_deadline(tmp_path: Path) -> None:
    async with door(tmp_path, header_timeout_s=0.2) as tls:
        reader, writer = await asyncio.open_connection("127.0.0.1", tls.port)
        async with asyncio.timeout(10):
            try:
                assert b"" == await reader.read()
            except ConnectionResetError:
                pass
        writer.close()


async def test_draining_does_not_wait_for_stalled_handshakes(tmp_path: Path) -> None:
    async with door(tmp_path) as tls:
        _, writer = await asyncio.open_connection("127.0.0.1", tls.port)
        client = await tls.connect()
        async with asyncio.timeout(5):
            await tls.server.drain(0.5)
        await client.close()
        writer.close()


async def test_an_early_refusal_is_read_by_a_client_that_still_sends(tmp_path: Path) -> None:
    async with door(tmp_path, max_body_bytes=1000) as tls:
        client = await tls.connect()
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n")
        await client.send(b"x" * 100_000)

        assert 413 == (await client.reply()).status
        await client.close()
