"""Clients that leave, stall or do not read; timeouts, caps, draining. Short limits stand for the long defaults."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from tests.integration.http.client import lab
from trygon.protocols.http import HttpServer
from trygon.protocols.http.connection import HttpConnection
from trygon.protocols.http.websocket_session import WebSocketSession
from trygon.testing.gateway import FakeGateway

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_client_that_goes_away_cancels_the_work(how: str) -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        await held.until(lambda: held.gateway.held, "the request")

        if how == "close":
            client.writer.close()
        elif how == "reset":
            client.reset()
        else:
            client.writer.write_eof()

        await held.until(lambda: held.gateway.held[0].cancelled, "the cancellation")
        await held.until(lambda: not held.server.statistics().connections, "the end")
        assert {"4xx": 1} == held.server.statistics().requests


async def test_client_that_leaves_a_stream_cancels_it() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"GET /hold?begin=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.head()

        client.reset()

        await held.until(lambda: held.gateway.held[0].cancelled, "the cancellation")


async def test_client_that_leaves_an_upload_cancels_it() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 400_000
        )
        await held.until(lambda: held.gateway.num_opened, "the upload")

        client.reset()

        await held.until(lambda: held.gateway.opened[0].cancelled, "the cancellation")


async def test_thousand_disconnects_leave_nothing() -> None:
    async with lab() as held:
        for _ in range(100):
            clients = [await held.connect() for _ in range(10)]
            for client in clients:
                await client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
            for client in clients:
                client.reset()
            held.clients.clear()

        await held.until(lambda: not held.server.statistics().connections, "the end")
        assert 0 == held.server.statistics().active
        assert all(upstream.cancelled for upstream in held.gateway.held)


async def test_request_timeout_is_408_and_cancels() -> None:
    async with lab(request_timeout_s=0.2) as held:
        client = await held.connect()

        reply = await client.get("/hold", "X-Request-ID: slow-one")

        assert 408 == reply.status
        assert b"Request slow-one timed out after 0.2s." == reply.body
        assert held.gateway.held[0].cancelled
        assert 200 == (await client.get()).status


@pytest.mark.parametrize(
    "value, expected", [("0.1", "0.1"), ("0", "0.3"), ("-1", "0.3"), ("soon", "0.3"), ("100", "0.3")]
)
async def test_client_may_only_shorten_the_timeout(value: str, expected: str) -> None:
    async with lab(request_timeout_s=0.3) as held:
        client = await held.connect()

        reply = await client.get("/hold", f"X-Request-Timeout-Seconds: {value}")

        assert 408 == reply.status
        assert reply.body.endswith(b"after %bs." % expected.encode())


async def test_client_may_set_a_timeout_where_there_is_none() -> None:
    async with lab() as held:
        client = await held.connect()

        assert 408 == (await client.get("/hold", "X-Request-Timeout-Seconds: 0.1")).status
        left_s = held.gateway.opened[0].meta.deadline - asyncio.get_running_loop().time()
        assert -5 < left_s <= 0.1


async def test_timeout_cuts_a_begun_answer() -> None:
    async with lab(request_timeout_s=0.2) as held:
        client = await held.connect()
        await client.send(b"GET /hold?begin=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.head()

        assert b"5\r\nbegun\r\n" == await client.end()
        assert held.gateway.held[0].cancelled


async def test_timeouts_of_fast_requests_never_fire() -> None:
    async with lab(request_timeout_s=0.3) as held:
        client = await held.connect()
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.8

        while loop.time() < end:
            assert 200 == (await client.get("/slow?ms=50")).status


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: a\r\n"])
async def test_incomplete_head_is_closed_in_time(sent: bytes) -> None:
    async with lab(header_timeout_s=0.3) as held:
        client = await held.connect()
        await client.send(sent)

        answer = await client.end()

        assert (b"HTTP/1.1 408" in answer) == bool(sent)


async def test_trickled_head_is_closed_in_time() -> None:
    async with lab(header_timeout_s=0.5) as held:
        client = await held.connect()
        loop = asyncio.get_running_loop()
        start = loop.time()

        sending = asyncio.create_task(
            client.trickle(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1000, 1, 0.02)
        )
        answer = await client.end()
        sending.cancel()

        assert b"HTTP/1.1 408" in answer
        assert loop.time() - start < 4.0


async def test_body_without_progress_is_closed_in_time_and_took_no_slot() -> None:
    async with lab(body_timeout_s=0.3) as held:
        client = await held.connect()
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")

        reply = await client.reply()

        assert 408 == reply.status
        assert 0 == held.gateway.num_opened


async def test_streamed_body_without_progress_is_cancelled() -> None:
    async with lab(body_timeout_s=0.3) as held:
        client = await held.connect()
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 400_000
        )

        assert 408 == (await client.reply()).status
        assert held.gateway.opened[0].cancelled


async def test_body_with_progress_may_take_long() -> None:
    async with lab(body_timeout_s=0.5, min_body_bytes=10) as held:
        client = await held.connect()
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")

        await client.trickle(b"x" * 1000, 50, 0.1)

        assert 200 == (await client.reply()).status


async def test_idle_connection_is_closed_in_time() -> None:
    async with lab(keep_alive_timeout_s=0.3) as held:
        client = await held.connect()
        await client.get()

        assert b"" == await client.end()


async def test_used_connection_is_not_idle() -> None:
    async with lab(keep_alive_timeout_s=1.0) as held:
        client = await held.connect()

        for _ in range(15):
            assert 200 == (await client.get("/slow?ms=10")).status
            await client.trickle(b"\r\n", 2, 0.2)


async def test_long_request_outlives_every_idle_timeout() -> None:
    async with lab(keep_alive_timeout_s=0.2, header_timeout_s=0.2, body_timeout_s=0.2) as held:
        client = await held.connect()
        await client.get()

        assert b"slow" == (await client.get("/slow?ms=2500")).body


async def test_reader_that_stops_stops_the_stream_and_is_cut() -> None:
    async with lab(write_timeout_s=0.5) as held:
        client = await held.connect(receive_buffer=4096)
        await client.send(b"GET /stream?n=100000&size=10000 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.writer.transport.pause_reading()
        await held.until(lambda: held.gateway.num_opened, "the stream")
        upstream = held.gateway.opened[0]

        await held.until(lambda: upstream.cancelled, "the cut")

        assert upstream.granted < 20_000_000


async def test_slow_reader_gets_its_stream_whole() -> None:
    async with lab(write_timeout_s=0.6) as held:
        client = await held.connect(receive_buffer=65536)
        await client.send(b"GET /stream?n=400&size=20000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

        answer = await client.read_slowly(300_000, 0.05, 3.0)

        assert len(answer) > 400 * 20_000


async def test_stream_waits_for_a_reader_without_losing_a_byte() -> None:
    async with lab() as held:
        client = await held.connect(receive_buffer=4096)
        await client.send(b"GET /stream?n=1000&size=10000 HTTP/1.1\r\nHost: a\r\n\r\n")
        await held.until(lambda: held.gateway.num_opened, "the stream")

        reply = await client.reply()

        assert 10_000_000 == len(reply.body)


async def test_reader_that_does_not_take_a_short_answer_is_cut() -> None:
    async with lab(write_timeout_s=0.4, keep_alive_timeout_s=0.4) as held:
        client = await held.connect(receive_buffer=4096)
        client.writer.transport.pause_reading()
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 250000\r\n\r\n" + b"x" * 250_000
        )
        for _ in range(40):
            client.writer.write(
                b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 250000\r\n\r\n" + b"x" * 250_000
            )

        await held.until(lambda: not held.server.statistics().connections, "the cut")


async def test_full_house_closes_the_oldest_incomplete_connection() -> None:
    async with lab(max_connections=4) as held:
        idle = await held.connect()
        await idle.get()
        first = await held.connect()
        await first.send(b"GET / HT")
        await held.until(lambda: held.server.statistics().incomplete == 1, "the first")
        second = await held.connect()
        await second.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        await held.until(lambda: held.server.statistics().incomplete == 2, "the second")
        active = await held.connect()
        await active.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        await held.until(lambda: held.gateway.held, "the active one")

        newcomer = await held.connect()

        assert b"" == await first.end()
        assert 200 == (await newcomer.get()).status
        newer = await held.connect()
        assert b"HTTP/1.1 503" in await second.end()
        assert 200 == (await newer.get()).status
        newest = await held.connect()
        assert b"" == await idle.end()
        assert 200 == (await newest.get()).status
        held.gateway.release()
        assert b"released" == (await active.reply()).body


async def test_full_house_at_work_refuses_the_newcomer() -> None:
    async with lab(max_connections=2) as held:
        for _ in range(2):
            client = await held.connect()
            await client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        await held.until(lambda: len(held.gateway.held) == 2, "the work")

        for _ in range(3):
            newcomer = await held.connect()
            reply = await newcomer.reply()
            assert 503 == reply.status
            assert "1" == reply["retry-after"]
            assert b"" == await newcomer.end()
            await newcomer.close()

        held.gateway.release()
        assert [b"released"] * 2 == [(await client.reply()).body for client in held.clients[:2]]
        assert 3 == held.server.statistics().refused


async def test_many_newcomers_do_not_grow_a_full_house() -> None:
    async with lab(max_connections=20) as held:
        for _ in range(200):
            client = await held.connect()
            await client.send(b"GET / HT")

        await held.until(lambda: held.server.statistics().accepted == 200, "all")
        await held.until(lambda: held.server.statistics().connections <= 21, "the cap")
        held.clients.append(client)
        fresh = await held.connect()
        assert 200 == (await fresh.get()).status


async def test_too_many_bytes_of_small_bodies_end_the_oldest() -> None:
    async with lab(max_buffered_bytes=300_000) as held:
        first = await held.connect()
        await first.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 250000\r\n\r\n" + b"x" * 200_000)
        await held.until(lambda: held.server.statistics().buffered_bytes == 200_000, "the first body")
        second = await held.connect()
        await second.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 250000\r\n\r\n" + b"x" * 200_000
        )

        assert 503 == (await first.reply()).status
        await second.send(b"x" * 50_000)
        assert 200 == (await second.reply()).status


async def test_drain_finishes_what_is_in_work() -> None:
    async with lab() as held:
        idle = await held.connect()
        await idle.get()
        active = await held.connect()
        await active.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        streaming = await held.connect()
        await streaming.send(b"GET /hold?begin=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await streaming.head()
        await held.until(lambda: len(held.gateway.held) == 2, "the work")

        draining = asyncio.create_task(held.server.drain(10.0))
        assert b"" == await idle.end()
        assert not draining.done()
        (plain, begun) = held.gateway.held
        plain.sink.on_response(200, 0, b"", b"done")
        begun.sink.on_data(b"end", 0)

        reply = await active.reply()
        assert (b"done", "close") == (reply.body, reply["connection"])
        assert b"5\r\nbegun\r\n3\r\nend\r\n0\r\n\r\n" == await streaming.end()
        await draining


async def test_drain_serves_a_connection_that_has_not_asked_yet() -> None:
    async with lab() as held:
        client = await held.connect()
        await held.until(lambda: held.server.statistics().connections, "the connection")

        draining = asyncio.create_task(held.server.drain(10.0))
        await asyncio.sleep(0)
        reply = await client.get()

        assert (200, "close") == (reply.status, reply["connection"])
        await draining


async def test_drain_cuts_what_outlives_the_grace() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        await held.until(lambda: held.gateway.held, "the work")

        await held.server.drain(0.1)

        assert held.gateway.held[0].cancelled
        assert 0 == held.server.statistics().connections


async def test_answer_to_a_broken_request_arrives_although_the_client_goes_on_sending() -> None:
    async with lab() as held:
        client = await held.connect()
        client.writer.write(b"NONSENSE\r\n\r\n" + b"x" * 3_000_000)

        reply = await client.reply()

        assert 400 == reply.status
        await client.writer.drain()


async def test_unix_socket_is_served(tmp_path, short_path) -> None:
    path = str(short_path / "http.sock")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    gateway = FakeGateway()
    server = HttpServer(sock, gateway, loop=asyncio.get_running_loop())
    server.start()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(GET)
    answer = await reader.readuntil(b"}")
    writer.close()
    await server.drain(1.0)
    sock.close()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert gateway.opened[0].meta.client is None


async def test_ended_connections_wait_for_no_garbage_collector() -> None:
    """A collection over ten thousand connections would hold the loop for 70 ms, so nothing may need one."""
    gc.collect()
    gc.disable()
    try:
        async with lab(FakeGateway(keep=0, defer=True)) as held:
            for raw in (
                GET,
                b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
                b"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                b"nonsense\r\n\r\n",
                b"GET / HT",
                b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nhi",
            ):
                for _ in range(5):
                    client = await held.connect()
                    await client.send(raw)
                    client.writer.write_eof()
                    await client.end()
                    await client.close()
            held.clients.clear()
            await held.until(lambda: not held.server.statistics().connections, "the end")
        await asyncio.sleep(0)

        left = [held for held in gc.get_objects() if isinstance(held, HttpConnection | WebSocketSession)]
        assert [] == left
    finally:
        gc.enable()
