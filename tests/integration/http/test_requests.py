"""Requests and answers over real sockets: framing, keep-alive, pipelining, own paths, labels."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import Any

import pytest

from tests.integration.http.client import lab
from tests.unit.protocols.vectors import INVALID, VALID
from trygon.testing.gateway import FakeGateway

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("defer", [False, True], ids=["at once", "next turn"])


async def test_answer_has_date_request_id_and_length() -> None:
    async with lab() as held:
        client = await held.connect()

        reply = await client.get()

        assert 200 == reply.status
        assert b'{"message":"hello"}' == reply.body
        assert "19" == reply["content-length"]
        assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", reply["date"])
        assert re.fullmatch(r"[0-9a-f]{32}", reply["x-request-id"])
        assert "connection" not in reply


@BOTH
async def test_connection_is_kept_and_ids_differ(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await held.connect()

        replies = [await client.get() for _ in range(5)]

        assert [200] * 5 == [reply.status for reply in replies]
        assert 5 == len({reply["x-request-id"] for reply in replies})
        assert 1 == held.server.statistics().accepted


@BOTH
async def test_connection_close_is_honoured(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await held.connect()

        reply = await client.get("/", "Connection: close")

        assert "close" == reply["connection"]
        assert b"" == await client.end()


async def test_http_10_closes_unless_asked() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        kept = await client.reply()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        closed = await client.reply()

        assert "keep-alive" == kept["connection"]
        assert "close" == closed["connection"]
        assert b"" == await client.end()


async def test_http_10_stream_ends_with_the_connection() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"GET /stream?n=3&size=5 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

        reply = await client.reply()

        assert "transfer-encoding" not in reply
        assert b"x" * 15 == reply.body


@BOTH
async def test_pipelined_requests_are_answered_in_order(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await held.connect()
        count = 200
        raw = b"".join(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(str(n)), str(n).encode())
            for n in range(count)
        )

        await client.send(raw)
        bodies = [(await client.reply()).body for _ in range(count)]

        assert [str(n).encode() for n in range(count)] == bodies


async def test_pipelined_requests_wait_for_the_one_in_work() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(
            b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n" + b"GET /meta HTTP/1.1\r\nHost: a\r\n\r\n" * 5000
        )
        await held.until(lambda: held.gateway.held, "the held request")
        opened = held.gateway.num_opened

        held.gateway.release()
        first = await client.reply()
        rest = [(await client.reply()).status for _ in range(5000)]

        assert 1 == opened
        assert b"released" == first.body
        assert [200] * 5000 == rest


async def test_pipelining_beyond_the_limit_pauses_reading() -> None:
    async with lab(max_pipelined_bytes=1000) as held:
        client = await held.connect()
        await client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        await held.until(lambda: held.gateway.held, "the held request")
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 300)

        held.gateway.release()

        assert b"released" == (await client.reply()).body
        assert [200] * 300 == [(await client.reply()).status for _ in range(300)]


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await client.reply(has_body=False)
        await client.send(b"HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        streamed = await client.reply(has_body=False)
        await client.send(b"HEAD /-/healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        own = await client.reply(has_body=False)
        after = await client.get()

        assert "19" == head["content-length"]
        assert 200 == streamed.status
        assert "7" == own["content-length"]
        assert 200 == after.status


@pytest.mark.parametrize("code", [204, 304])
async def test_status_without_a_body(code: int) -> None:
    async with lab() as held:
        client = await held.connect()

        reply = await client.get(f"/status?code={code}&body=never&length=5")

        assert code == reply.status
        if code == 204:
            assert "content-length" not in reply
        assert 200 == (await client.get()).status


@pytest.mark.parametrize("code", [201, 205, 299, 404, 418, 500, 599])
async def test_any_status_passes(code: int) -> None:
    async with lab() as held:
        client = await held.connect()

        assert code == (await client.get(f"/status?code={code}&body=x")).status


@pytest.mark.parametrize("code", [0, 99, 100, 199, 1000])
async def test_impossible_status_of_an_application_is_a_500(code: int) -> None:
    async with lab() as held:
        client = await held.connect()

        assert 500 == (await client.get(f"/status?code={code}")).status
        assert b"" == await client.end()


@BOTH
async def test_stream_is_chunked(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await held.connect()

        reply = await client.get("/stream?n=50&size=1000")

        assert "chunked" == reply["transfer-encoding"]
        assert (1000,) * 50 == reply.chunks
        assert 200 == (await client.get()).status
        if defer:
            # All but the last part, whose end needs no credit.
            assert 49_000 == held.gateway.opened[0].granted


async def test_stream_of_large_parts() -> None:
    async with lab() as held:
        client = await held.connect()

        reply = await client.get("/stream?n=40&size=50000")

        assert 2_000_000 == len(reply.body)


async def test_empty_stream() -> None:
    async with lab() as held:
        client = await held.connect()

        assert b"" == (await client.get("/stream?n=0")).body
        assert 200 == (await client.get()).status


async def test_stream_with_a_length_is_not_chunked() -> None:
    async with lab() as held:
        client = await held.connect()

        reply = await client.get("/stream?n=5&size=10&length=50")

        assert "50" == reply["content-length"]
        assert b"x" * 50 == reply.body
        assert 200 == (await client.get()).status


@pytest.mark.parametrize("target", ["/stream?n=5&size=10&length=33", "/status?body=0123456789&length=3"])
async def test_more_than_promised_is_cut_at_the_length(target: str) -> None:
    async with lab() as held:
        client = await held.connect()

        reply = await client.get(target)

        assert int(reply["content-length"]) == len(reply.body)
        assert b"" == await client.end()


@pytest.mark.parametrize("target", ["/stream?n=5&size=10&length=80", "/status?body=0123456789&length=80"])
async def test_less_than_promised_cuts_the_connection(target: str) -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target.encode())

        reply = await client.head()

        assert "80" == reply["content-length"]
        assert len(await client.end()) < 80


@BOTH
async def test_small_body_reaches_the_application_in_one_piece(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await held.connect()
        await client.send(b"POST /meta HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
        await held.until(lambda: held.server.statistics().incomplete, "the body")
        assert 0 == held.gateway.num_opened
        for _ in range(4):
            await client.send(b"x" * 50_000)

        value = json.loads((await client.reply()).body)

        assert (200_000, 1) == (value["body_size"], value["num_parts"])


@BOTH
async def test_large_body_is_streamed(defer: bool) -> None:
    async with lab(FakeGateway(defer=defer)) as held:
        client = await held.connect()

        value = json.loads((await client.post("/meta", b"x" * 3_000_000)).body)

        assert 3_000_000 == value["body_size"]
        assert value["num_parts"] > 1
        assert 200 == (await client.get()).status


async def test_large_chunked_body_is_streamed() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            await client.send(b"%x\r\n%b\r\n" % (10_000, b"y" * 10_000))
        await client.send(b"0\r\nTrailer: dropped\r\n\r\n")

        reply = await client.reply()

        assert b"y" * 1_000_000 == reply.body
        assert 200 == (await client.get()).status


async def test_body_of_tiny_chunks_passes() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\na\r\n" * 300_000
            + b"0\r\n\r\n"
        )

        assert b"a" * 300_000 == (await client.reply()).body


async def test_upload_waits_while_the_application_does_not_read() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"POST /pipe?late HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n")
        sent = 0
        part = b"z" * 100_000
        await client.send(part * 3)
        sent += 3
        await held.until(lambda: held.gateway.num_opened, "the upload")
        upstream = held.gateway.opened[0]
        upstream.max_unread = 1000
        upstream.handler = lambda upstream, data, flags: None

        try:
            for _ in range(400):
                client.writer.write(part)
                async with asyncio.timeout(0.5):
                    await client.writer.drain()
                sent += 1
        except TimeoutError:
            pass

        assert sent < 300, "the server went on reading"
        assert sum(upstream.parts) < 5_000_000
        # A paused connection is not watched, so its loss is only seen when reading goes on.
        client.reset()
        upstream.max_unread = None
        upstream.sink.on_writable()
        await held.until(lambda: upstream.cancelled, "the cancellation")


async def test_blocked_upload_goes_on_when_the_application_reads() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 300_000
        )
        await held.until(lambda: held.gateway.num_opened, "the upload")
        upstream = held.gateway.opened[0]
        upstream.max_unread = 1000

        async def read_on() -> None:
            while not upstream.done:
                if upstream.unread > 1000:
                    upstream.unread = 0
                    upstream.sink.on_writable()
                await asyncio.sleep(0)

        reading = asyncio.create_task(read_on())
        await client.send(b"x" * 1_700_000)

        assert 2_000_000 == len((await client.reply()).body)
        await reading


async def test_answer_before_the_body_ends_closes_after_it() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(
            b"POST /status?body=no HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 400_000
        )

        reply = await client.reply()

        assert "close" == reply["connection"]
        assert b"no" == reply.body


async def test_expect_gets_100_when_the_body_is_wanted() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )

        informed = await client.reply()
        await client.send(b"hello")

        assert 100 == informed.status
        assert b"hello" == (await client.reply()).body


async def test_expect_gets_no_100_when_the_body_is_there() -> None:
    async with lab() as held:
        client = await held.connect()

        assert 200 == (await client.post("/echo", b"hello", "Expect: 100-continue")).status


async def test_expect_gets_the_final_answer_when_nobody_wants_the_body() -> None:
    async with lab(FakeGateway(prefix="/app")) as held:
        client = await held.connect()
        await client.send(
            b"POST /other HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )

        reply = await client.reply()

        assert 404 == reply.status
        assert "close" == reply["connection"]


async def test_body_beyond_the_limit_is_413() -> None:
    async with lab(max_body_bytes=1000) as held:
        for lines in (
            b"Content-Length: 1001\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n500\r\n" + b"x" * 0x500,
        ):
            client = await held.connect()
            await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\n" + lines)
            assert 413 == (await client.reply()).status
            assert b"" == await client.end()
        client = await held.connect()
        assert 200 == (await client.post("/echo", b"x" * 1000)).status


async def test_streamed_body_beyond_the_limit_cancels() -> None:
    async with lab(max_body_bytes=1_000_000) as held:
        client = await held.connect()
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.writer.write((b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000)) * 11)

        assert 413 == (await client.reply()).status
        assert held.gateway.opened[0].cancelled


async def test_own_paths() -> None:
    async with lab(FakeGateway(prefix="/app")) as held:
        client = await held.connect()

        health = await client.get("/-/healthz")
        routes = await client.get("/-/routes")
        options = await client.get("/-/routes/none")
        await client.send(b"POST /-/healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        post = await client.reply()
        await client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        star = await client.reply()

        assert (200, b"success") == (health.status, health.body)
        assert {"/app": "default"} == json.loads(routes.body)
        assert 404 == options.status
        assert (405, "GET, HEAD") == (post.status, post["allow"])
        assert (200, b"") == (star.status, star.body)


async def test_unknown_path_lists_the_routes() -> None:
    async with lab(FakeGateway(prefix="/app")) as held:
        client = await held.connect()

        reply = await client.get("/x%20y", "Connection: keep-alive")

        assert 404 == reply.status
        assert (
            b"Path '/x%20y' not found. Ping http://a/-/routes for available routes. Routes: /app."
            == reply.body
        )
        assert "text/plain; charset=utf-8" == reply["content-type"]


async def test_before_the_first_route_everything_is_503() -> None:
    async with lab(FakeGateway(prefix=None)) as held:
        client = await held.connect()

        for path in ("/", "/-/healthz", "/-/routes"):
            reply = await client.get(path)
            assert 503 == reply.status
            assert b"Route table is not populated yet." == reply.body


async def test_request_id_is_taken_over_and_echoed() -> None:
    async with lab() as held:
        client = await held.connect()

        given = await client.get("/meta", "X-Request-ID: my-id.1")
        bad = await client.get("/meta", "X-Request-ID: with space")

        assert "my-id.1" == given["x-request-id"] == json.loads(given.body)["request_id"]
        assert re.fullmatch(r"[0-9a-f]{32}", bad["x-request-id"])
        assert bad["x-request-id"] == json.loads(bad.body)["request_id"]


async def test_meta_carries_the_whole_request() -> None:
    async with lab(FakeGateway(prefix="/app")) as held:
        client = await held.connect()

        reply = await client.post(
            "/app/meta?q=%20x",
            b"body",
            "X-A: 1",
            "X-A: 2",
            "Serve-Multiplexed-Model-ID: m",
            "X-Session-ID: s",
        )

        value = json.loads(reply.body)
        assert ("POST", "/app/meta", "q=%20x") == (value["method"], value["path"], value["query"])
        assert ("/app", "/app", "http", "1.1") == (
            value["root_path"],
            value["route"],
            value["scheme"],
            value["http_version"],
        )
        assert ("m", "s", "body") == (value["model_id"], value["session_id"], value["body"])
        assert [["x-a", "1"], ["x-a", "2"]] == [pair for pair in value["headers"] if pair[0] == "x-a"]
        assert ["127.0.0.1", held.port] == value["server"]
        assert client.writer.get_extra_info("sockname")[1] == value["client"][1]


async def test_failure_is_answered_with_its_reason_and_retry_after() -> None:
    async with lab() as held:
        client = await held.connect()

        busy = await client.get("/fail?status=503&reason=busy&retry=2")
        died = await client.get("/fail?status=502&reason=died")

        assert (503, b"busy", "2") == (busy.status, busy.body, busy["retry-after"])
        assert (502, b"died") == (died.status, died.body)
        assert "retry-after" not in died
        assert 200 == (await client.get()).status


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_failure_of_a_begun_answer_cuts_it(version: str) -> None:
    async with lab() as held:
        client = await held.connect()
        await client.send(b"GET /fail?begin=1 HTTP/%b\r\nHost: a\r\n\r\n" % version.encode())
        await client.head()

        if version == "1.1":
            assert b"5\r\nbegun\r\n" == await client.end()
        else:
            with pytest.raises(ConnectionError):
                await client.end()


async def test_fault_of_the_gateway_is_a_500_and_ends_one_connection() -> None:
    class Faulty(FakeGateway):
        def open(self, route: Any, meta: Any, body: Any, *, more: Any, sink: Any) -> Any:
            if meta.path == "/fault":
                raise RuntimeError("not today")
            return super().open(route, meta, body, more=more, sink=sink)

    reported = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: reported.append(context["exception"])
    )
    async with lab(Faulty()) as held:
        client = await held.connect()
        reply = await client.get("/fault")
        other = await held.connect()

        assert (500, b"Internal Server Error") == (reply.status, reply.body)
        assert b"" == await client.end()
        assert 200 == (await other.get()).status
    assert ["not today"] == [str(error) for error in reported]


async def test_access_log_has_one_line_for_each_request() -> None:
    reader, writer = os.pipe()
    async with lab(FakeGateway(prefix="/app"), log_fd=writer, access_log=True, ingress_id="3") as held:
        client = await held.connect()
        await client.get("/app", "X-Request-ID: one")
        await client.get("/other?secret", "X-Request-ID: two")
        await client.send(b"nonsense\r\n\r\n")
        await client.end()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()

    assert re.fullmatch(r"INFO \S+ \S+ ingress 3 one -- GET /app 200 \d+\.\dms", lines[0])
    assert re.fullmatch(r"INFO \S+ \S+ ingress 3 two -- GET /other 404 \d+\.\dms", lines[1])
    assert re.fullmatch(r"INFO \S+ \S+ ingress 3 \S+ -- - - 400 \d+\.\dms", lines[2])
    assert 3 == len(lines)


async def test_statistics_count_requests_by_class() -> None:
    async with lab() as held:
        client = await held.connect()
        await client.get()
        await client.get("/status?code=404")
        await client.get("/fail?status=503")

        statistics = held.server.statistics()

        assert {"2xx": 1, "4xx": 1, "5xx": 1} == statistics.requests
        assert statistics.latency_sum_s > 0
        assert (1, 1, 0, 0) == (
            statistics.connections,
            statistics.idle,
            statistics.active,
            statistics.incomplete,
        )


async def test_every_valid_vector_is_served() -> None:
    wrong = []
    async with lab() as held:
        for vector in VALID:
            client = await held.connect()
            await client.send(vector.raw)
            reply = await client.reply(has_body=vector.method != "HEAD")
            if reply.status not in (101, 200):
                wrong.append((vector.name, reply))
            client.reset()

    assert [] == wrong


async def test_every_invalid_vector_is_answered_and_its_connection_closed() -> None:
    wrong = []
    async with lab() as held:
        for vector in INVALID:
            client = await held.connect()
            await client.send(vector.raw)
            reply = await client.reply()
            rest = await client.end()
            if reply.status != vector.status or reply["connection"] != "close" or b"\n" in reply.body or rest:
                wrong.append((vector.name, reply, rest))
            await client.close()
        assert 0 == held.gateway.num_opened

    assert [] == wrong
