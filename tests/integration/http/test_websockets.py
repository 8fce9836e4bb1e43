"""Websockets over real sockets: handshake, messages, both closes, pings, limits, loss."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.http.client import Client, Lab, lab
from tests.unit.protocols.test_websocket import frame
from trygon.dataplane.frames import FrameFlag
from trygon.testing.gateway import FakeGateway

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("defer", [False, True], ids=["at once", "next turn"])
HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)


async def open_socket(held: Lab, path: bytes = b"/ws", lines: bytes = b"", early: bytes = b"") -> Client:
    client = await held.connect()
    await client.send(HANDSHAKE % (path, lines) + early)
    reply = await client.reply()
    assert 101 == reply.status
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == reply["sec-websocket-accept"]
    assert ("websocket", "Upgrade") == (reply["upgrade"], reply["connection"])
    assert "content-length" not in reply
    return client


@BOTH
async def test_messages_are_echoed(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await open_socket(held)

        await client.send(frame(1, b"hello"))
        text = await client.frame()
        await client.send(frame(2, b"\x00\xff" * 40_000))
        binary = await client.frame()
        await client.send(frame(1, b"a", fin=False) + frame(0, b"b"))
        joined = await client.frame()

        assert (1, b"hello") == text
        assert (2, b"\x00\xff" * 40_000) == binary
        assert (1, b"ab") == joined
        assert 1 == held.server.statistics().websockets


@BOTH
async def test_messages_sent_with_the_handshake_are_not_lost(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await open_socket(held, early=frame(1, b"early") + frame(1, b"bird"))

        assert [(1, b"early"), (1, b"bird")] == [await client.frame(), await client.frame()]


async def test_subprotocol_of_the_application_is_told() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(HANDSHAKE % (b"/ws", b"Sec-WebSocket-Protocol: chat, other\r\n"))

        assert "chat" == (await client.reply())["sec-websocket-protocol"]


@BOTH
async def test_refused_handshake_is_an_ordinary_answer(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await held.connect()
        await client.send(HANDSHAKE % (b"/wsdeny", b""))

        reply = await client.reply()

        assert (403, b"denied") == (reply.status, reply.body)
        assert 200 == (await client.get()).status


async def test_handshake_to_no_application_is_404() -> None:
    async with lab(FakeGateway(prefix="/app")) as held:
        client = await held.connect()
        await client.send(HANDSHAKE % (b"/ws", b""))

        assert 404 == (await client.reply()).status


async def test_failure_before_the_handshake_ends_is_an_ordinary_answer() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(HANDSHAKE % (b"/fail?status=503", b""))

        assert 503 == (await client.reply()).status


@BOTH
async def test_client_closes(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await open_socket(held)
        await client.send(frame(8, (3000).to_bytes(2) + b"bye"))

        assert (8, (3000).to_bytes(2) + b"bye") == await client.frame()
        assert b"" == await client.end()
        assert (3000, b"bye") == held.gateway.opened[0].closed
        assert not held.gateway.opened[0].cancelled


async def test_client_closes_without_a_code() -> None:
    async with lab() as held:
        client = await open_socket(held)
        await client.send(frame(8))

        assert (8, b"") == await client.frame()
        assert (1005, b"") == held.gateway.opened[0].closed


async def test_application_closes() -> None:
    async with lab() as held:
        client = await open_socket(held)
        await client.send(frame(1, b"close please"))

        assert (8, (3001).to_bytes(2) + b"as asked") == await client.frame()
        await client.send(frame(8, (3001).to_bytes(2)))
        assert b"" == await client.end()
        assert held.gateway.opened[0].closed is None


async def test_client_that_does_not_answer_a_close_is_cut() -> None:
    async with lab(close_timeout_s=0.3) as held:
        client = await open_socket(held)
        await client.send(frame(1, b"close please"))
        await client.frame()

        await held.until(lambda: not held.server.statistics().websockets, "the cut")


async def test_failing_application_closes_with_1011() -> None:
    async with lab() as held:
        client = await open_socket(held)
        await client.send(frame(1, b"fail please"))

        assert (8, (1011).to_bytes(2) + b"failed") == await client.frame()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_lost_client_is_told_as_1006(how: str) -> None:
    async with lab() as held:
        client = await open_socket(held)

        if how == "close":
            client.writer.close()
        elif how == "reset":
            client.reset()
        else:
            client.writer.write_eof()

        await held.until(lambda: held.gateway.opened[0].closed, "the close")
        assert (1006, b"") == held.gateway.opened[0].closed


async def test_ping_is_answered() -> None:
    async with lab() as held:
        client = await open_socket(held)
        await client.send(frame(9, b"data"))

        assert (10, b"data") == await client.frame()
        assert [] == held.gateway.opened[0].messages


async def test_server_pings_and_a_pong_keeps_the_connection() -> None:
    async with lab(ping_interval_s=0.1, ping_timeout_s=0.5) as held:
        client = await open_socket(held)

        for _ in range(2):
            opcode, data = await client.frame()
            assert 9 == opcode
            await client.send(frame(10, data))

        assert 1 == held.server.statistics().websockets


async def test_client_that_answers_no_ping_is_cut() -> None:
    async with lab(ping_interval_s=0.1, ping_timeout_s=0.1) as held:
        client = await open_socket(held)
        assert 9 == (await client.frame())[0]

        await held.until(lambda: held.gateway.opened[0].closed, "the close")
        assert (1006, b"") == held.gateway.opened[0].closed


@pytest.mark.parametrize(
    "raw, code",
    [
        (frame(1, b"a", masked=False), 1002),
        (frame(1, b"a", rsv=1), 1002),
        (frame(1, b"\xff"), 1007),
        (frame(2, b"x" * 2000), 1009),
        (frame(8, b"\x00\x01"), 1002),
    ],
    ids=["not masked", "reserved bit", "not utf-8", "too big", "bad close code"],
)
async def test_violation_closes_with_its_code(raw: bytes, code: int) -> None:
    async with lab(max_message_bytes=1000) as held:
        client = await open_socket(held)
        await client.send(frame(1, b"before") + raw + frame(1, b"after"))

        assert (1, b"before") == await client.frame()
        opcode, data = await client.frame()
        assert (8, code) == (opcode, int.from_bytes(data[:2]))
        assert b"" == await client.end()
        closed = held.gateway.opened[0].closed
        assert closed is not None
        assert code == closed[0]


async def test_application_that_does_not_read_stops_the_client() -> None:
    async with lab() as held:
        client = await open_socket(held)
        upstream = held.gateway.opened[0]
        upstream.handler = lambda upstream, data, flags: None
        upstream.max_unread = 1000
        sent = 0
        try:
            for _ in range(400):
                client.writer.write(frame(2, b"x" * 100_000))
                async with asyncio.timeout(0.5):
                    await client.writer.drain()
                sent += 1
        except TimeoutError:
            pass

        assert sent < 300, "the server went on reading"

        def reads_on() -> bool:
            if upstream.unread > 1000:
                upstream.unread = 0
                upstream.sink.on_writable()
            return len(upstream.messages) >= sent

        await held.until(reads_on, "the rest")


async def test_client_that_does_not_read_stops_the_application_and_is_cut() -> None:
    async with lab(write_timeout_s=0.4) as held:
        client = await open_socket(held)
        client.writer.transport.pause_reading()
        upstream = held.gateway.opened[0]
        sent = 0

        while sent - upstream.granted < 65536 and sent < 50_000_000:
            upstream.sink.on_data(b"x" * 10_000, int(FrameFlag.MORE))
            sent += 10_000
            await asyncio.sleep(0)

        assert sent < 50_000_000
        await held.until(lambda: upstream.closed, "the cut")
        assert (1006, b"") == upstream.closed


async def test_drain_closes_websockets_with_1012() -> None:
    async with lab() as held:
        client = await open_socket(held)

        draining = asyncio.create_task(held.server.drain(5.0))
        assert (8, (1012).to_bytes(2)) == await client.frame()
        await client.send(frame(8, (1012).to_bytes(2)))
        await draining

        assert (1012, b"") == held.gateway.opened[0].closed


async def test_flood_of_small_messages_passes() -> None:
    async with lab() as held:
        client = await open_socket(held)
        await client.send(frame(1, b"x") * 5000)

        for _ in range(5000):
            assert (1, b"x") == await client.frame()
