"""Requests over HTTP: routing, bodies, streams, ids, errors, disconnects, kinds of callables."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.serve.conftest import RunApp
from tests.integration.serve.http_apps import (
    AsyncInit,
    Configured,
    NoParameters,
    Predictor,
    Threads,
    Web,
    function,
    sync_function,
)
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.handle import DeploymentHandle

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(scope="module")
def web(url: str) -> Iterator[DeploymentHandle]:
    yield serve.run(Web.bind(), name="web", route_prefix="/web")
    serve.delete("web")


def raw(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def noted(web: DeploymentHandle, note: str) -> None:
    wait_until(lambda: note in web.noted.remote().result(), f"the note {note!r}")


# ---- what a request looks like


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"])
def test_any_method_reaches_the_handler(web: DeploymentHandle, client: httpx.Client, method: str) -> None:
    assert method == client.request(method, "/web/describe").json()["method"]


def test_a_request_is_seen_whole(web: DeploymentHandle, client: httpx.Client) -> None:
    answer = client.get(
        "/web/sub%20x//y/describe?a=1&b=%20z&a=2",
        headers=[("X-One", "1"), ("X-Two", "é".encode()), ("X-One", "2")],
    )

    found = answer.json()
    assert ("/web/sub x//y/describe", "/web/sub%20x//y/describe") == (found["path"], found["raw"])
    assert ("/web", "a=1&b=%20z&a=2", "1.1", "http") == (
        found["root"],
        found["query"],
        found["version"],
        found["scheme"],
    )
    assert found["client"]
    assert found["http"]
    assert ("/web", "web") == (found["route"], found["app"])
    assert [["x-one", "1"], ["x-one", "2"]] == [pair for pair in found["headers"] if pair[0] == "x-one"]


def test_request_ids_are_taken_over_or_made(web: DeploymentHandle, client: httpx.Client) -> None:
    given = client.get("/web/describe", headers={"X-Request-ID": "mine-1"})
    made = [client.get("/web/describe") for _ in range(3)]

    assert "mine-1" == given.headers["x-request-id"] == given.json()["id"]
    assert [answer.headers["x-request-id"] for answer in made] == [answer.json()["id"] for answer in made]
    assert 3 == len({answer.headers["x-request-id"] for answer in made})


def test_a_made_request_id_is_among_the_headers(web: DeploymentHandle, client: httpx.Client) -> None:
    found = client.get("/web/describe").json()

    assert ["x-request-id", found["id"]] in found["headers"]


# ---- bodies


@pytest.mark.parametrize("size", [0, 1, 65_536, 262_144, 262_145, 5_000_000])
@pytest.mark.parametrize("how", ["length", "digest"])
def test_uploads_arrive_whole(web: DeploymentHandle, client: httpx.Client, size: int, how: str) -> None:
    found = client.post(f"/web/{how}", content=b"x" * size).json()

    assert size == (found if how == "length" else found["size"])


def test_chunked_uploads_arrive_whole(web: DeploymentHandle, client: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for number in range(2000):
            yield b"%04d" % number * 100

    assert 800_000 == client.post("/web/length", content=parts()).json()
    assert 800_000 == client.post("/web/digest", content=parts()).json()["size"]


def test_a_large_upload_is_read_in_bounded_parts(web: DeploymentHandle, client: httpx.Client) -> None:
    found = client.post("/web/digest", content=b"x" * 20_000_000).json()

    assert 20_000_000 == found["size"]
    assert found["biggest"] <= 1_000_000


def test_json_bodies(web: DeploymentHandle, client: httpx.Client) -> None:
    body = {"a": [1, "ü", None], "big": "x" * 400_000}

    assert body == client.post("/web/json", json=body).json()
    assert 500 == client.post("/web/json", content=b"{").status_code


@pytest.mark.skipif(importlib.util.find_spec("python_multipart") is None, reason="needs python-multipart")
def test_multipart_uploads(web: DeploymentHandle, client: httpx.Client) -> None:
    answer = client.post(
        "/web/form", data={"field": "value"}, files={"file": ("f.bin", b"y" * 5_000_000, "application/x")}
    )

    assert {"field": "value", "file": ["f.bin", 5_000_000]} == answer.json()


def test_a_handler_that_reads_slowly_slows_the_upload(web: DeploymentHandle, url: str) -> None:
    size = 60_000_000
    with raw(url) as sock:
        sock.sendall(b"POST /web/slow_upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        sock.settimeout(1.0)
        sent = _send_until_full(sock, size)
        assert sent < 30_000_000
        web.open.remote("upload").result()
        sock.settimeout(20)
        while sent < size:
            sent += sock.send(b"x" * min(100_000, size - sent))
        answer = sock.recv(10_000)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(str(size).encode())


def _send_until_full(sock: socket.socket, size: int) -> int:
    """Send until nothing more is taken, or everything was."""
    sent = 0
    try:
        while sent < size:
            sent += sock.send(b"x" * 100_000)
    except TimeoutError:
        pass
    return sent


def test_a_client_that_goes_during_its_upload_is_noticed(web: DeploymentHandle, url: str) -> None:
    with raw(url) as sock:
        sock.sendall(
            b"POST /web/digest HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 500_000
        )

    with httpx.Client(base_url=url) as client:
        assert 200 == client.get("/web/describe").status_code


# ---- streaming answers


@pytest.mark.parametrize("kind", ["stream_sync", "stream_async"])
@pytest.mark.parametrize("count", [0, 1, 3000])
def test_streams_arrive_whole(web: DeploymentHandle, client: httpx.Client, kind: str, count: int) -> None:
    answer = client.get(f"/web/{kind}", params={"count": count})

    assert [str(number) for number in range(count)] == answer.text.split()


def test_a_chunk_arrives_before_the_next_is_made(web: DeploymentHandle, client: httpx.Client) -> None:
    with client.stream("GET", "/web/stream_gated") as answer:
        parts = answer.iter_raw()
        assert b"first" == next(parts)
        web.open.remote("stream").result()
        assert b"second" == next(parts)


def test_a_client_that_does_not_read_stops_the_stream(web: DeploymentHandle, url: str) -> None:
    before = web.made.remote().result()
    with raw(url) as sock:
        sock.sendall(b"GET /web/stream_flood HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(1000)
        made, same = -1, 0
        while same < 50:
            now = web.made.remote().result() - before
            same = same + 1 if now == made else 0
            made = now
        # The kernel's buffers hold some megabytes, we hold two windows.
        assert made * 10_000 < 20_000_000

    noted(web, "flood closed")


def test_an_error_in_the_middle_cuts_the_answer(web: DeploymentHandle, client: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/web/stream_fails")

    assert 200 == client.get("/web/describe").status_code


def test_background_tasks_run_after_the_answer(web: DeploymentHandle, client: httpx.Client) -> None:
    assert "at once" == client.get("/web/background").text
    wait_until(lambda: web.count.remote("background").result() == 1, "the background task")
    assert "background done" not in web.noted.remote().result()

    web.open.remote("background").result()

    noted(web, "background done")


# ---- errors


@pytest.mark.parametrize("what", ["raises", "cancels_itself", "exits", "nothing_of_that_name"])
def test_errors_are_500_without_details(web: DeploymentHandle, client: httpx.Client, what: str) -> None:
    answer = client.get(f"/web/{what}")

    assert (500, "Internal Server Error") == (answer.status_code, answer.text)
    assert answer.headers["x-request-id"]
    assert 200 == client.get("/web/describe").status_code


# ---- going away


def test_a_gone_client_cancels_the_handler(web: DeploymentHandle, url: str) -> None:
    with raw(url) as sock:
        sock.sendall(b"GET /web/waits?door=gone HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: web.count.remote("gone").result() == 1, "the handler to wait")

    wait_until(lambda: "gone: cancelled" in web.report.remote().result()["done"], "the cancellation")


def test_a_gone_client_closes_the_stream(web: DeploymentHandle, url: str) -> None:
    before = web.noted.remote().result().count("stream closed")
    with raw(url) as sock:
        sock.sendall(b"GET /web/stream_gated HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(1000)

    wait_until(lambda: web.noted.remote().result().count("stream closed") > before, "the generator's finally")


def test_a_hundred_gone_clients_leave_no_slot_taken(run_app: RunApp, url: str) -> None:
    handle = run_app(Web.options(max_ongoing_requests=3).bind(), name="gone", route_prefix="/gone")

    for _ in range(100):
        with raw(url) as sock:
            sock.sendall(b"GET /gone/waits?door=never HTTP/1.1\r\nHost: x\r\n\r\n")

    wait_until(lambda: handle.count.remote("never").result(timeout_s=10) == 0, "every handler's end")
    with httpx.Client(base_url=url) as client, ThreadPoolExecutor(2) as threads:
        waits = [threads.submit(client.get, "/gone/waits?door=open") for _ in range(2)]
        wait_until(lambda: handle.count.remote("open").result() == 2, "two requests at once")
        handle.open.remote("open").result()
        assert [200, 200] == [wait.result().status_code for wait in waits]


# ---- routing


def test_applications_live_side_by_side(web: DeploymentHandle, run_app: RunApp, client: httpx.Client) -> None:
    run_app(AsyncInit.bind("root"), name="root", route_prefix="/")
    run_app(AsyncInit.bind("a"), name="a", route_prefix="/a")
    run_app(AsyncInit.bind("deep"), name="deep", route_prefix="/a/b")
    run_app(AsyncInit.bind("hidden"), name="hidden", route_prefix=None)

    found = {
        path: client.get(path).text
        for path in ("/", "/x", "/a", "/a/", "/a/x", "/ab", "/a/b", "/a/b/c", "/a/bc")
    }

    assert {
        "/": "root",
        "/x": "root",
        "/a": "a",
        "/a/": "a",
        "/a/x": "a",
        "/ab": "root",
        "/a/b": "deep",
        "/a/b/c": "deep",
        "/a/bc": "a",
    } == found
    assert {"/": "root", "/a": "a", "/a/b": "deep", "/web": "web"} == client.get("/-/routes").json()
    assert "hidden" == serve.get_app_handle("hidden").remote(None).result()


def test_unknown_paths_are_404_and_name_the_routes(web: DeploymentHandle, client: httpx.Client) -> None:
    answer = client.get("/webby")

    assert 404 == answer.status_code
    assert "Path '/webby' not found" in answer.text
    assert "/-/routes" in answer.text
    assert "/web" in answer.text


def test_health_and_routes(web: DeploymentHandle, client: httpx.Client) -> None:
    assert (200, "success") == (client.get("/-/healthz").status_code, client.get("/-/healthz").text)
    assert {"/web": "web"} == client.get("/-/routes").json()


# ---- kinds of callables


@pytest.mark.parametrize(
    "target, expected",
    [
        (NoParameters.bind(), "nothing needed"),
        (function.bind(), "function at /kind/x"),
        (sync_function.bind(), '{"sync":true}'),
        (Predictor.bind(), "[1]"),
        (AsyncInit.bind("made async"), "made async"),
        (Configured.options(user_config={"k": [1]}).bind(), '{"k": [1]}'),
    ],
)
def test_callables_of_every_kind_serve(
    run_app: RunApp, client: httpx.Client, target: Any, expected: str
) -> None:
    run_app(target, name="kind", route_prefix="/kind")

    assert expected == client.get("/kind/x?a=1").text


def test_sync_handlers_run_in_threads_with_their_own_context(run_app: RunApp, client: httpx.Client) -> None:
    handle = run_app(Threads.bind(), name="threads", route_prefix="/threads")

    with ThreadPoolExecutor(6) as threads:
        answers = [
            threads.submit(
                client.get, f"/threads?colour=c{number}&door=all", headers={"X-Request-ID": str(number)}
            )
            for number in range(6)
        ]
        wait_until(lambda: handle.count.remote("all").result() == 6, "six threads at once")
        handle.open.remote("all").result()
        found = [answer.result().json() for answer in answers]

    expected = [{"main": False, "colour": f"c{number}", "id": str(number)} for number in range(6)]
    assert expected == found
    assert "none" == client.get("/threads").json()["colour"]


# ---- connections


def test_pipelined_requests_are_answered_in_order(web: DeploymentHandle, url: str) -> None:
    with raw(url) as sock:
        sock.sendall(
            b"".join(
                b"GET /web/describe?n=%d HTTP/1.1\r\nHost: x\r\nX-Request-ID: p%d\r\n\r\n" % (n, n)
                for n in range(20)
            )
            + b"GET /web/describe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: sock.recv(65536), b""))

    ids = [line.split()[1] for line in answer.lower().split(b"\r\n") if line.startswith(b"x-request-id:")]
    assert [b"p%d" % n for n in range(20)] == ids[:20]
    assert 21 == len(ids)


def test_expect_100_continue(web: DeploymentHandle, url: str) -> None:
    with raw(url) as sock:
        sock.sendall(
            b"POST /web/length HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"12345")
        assert sock.recv(1000).endswith(b"5")


def test_old_clients_are_served(web: DeploymentHandle, url: str) -> None:
    with raw(url) as sock:
        sock.sendall(b"GET /web/stream_async?count=3 HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"200" in head.split(b"\r\n")[0]
    assert b"chunked" not in head.lower()
    assert b"0\n1\n2\n" == body


# ---- timeouts


@pytest.fixture(scope="class")
def hurried() -> Iterator[str]:
    """Give an instance with request_timeout_s, in place of the file's own."""
    serve.shutdown()
    serve.start(http_options={"port": 0, "request_timeout_s": 0.5})
    yield serve.http_address()
    serve.shutdown()


class TestTimeout:
    """Last in the file: it replaces the instance."""

    @pytest.fixture
    def late(self, hurried: str) -> Iterator[DeploymentHandle]:
        yield serve.run(Web.bind(), name="late", route_prefix="/late")
        serve.delete("late")

    def test_a_late_answer_is_408_and_cancelled(self, hurried: str, late: DeploymentHandle) -> None:
        answer = httpx.get(f"{hurried}/late/waits?door=late", timeout=10, headers={"X-Request-ID": "r1"})

        assert 408 == answer.status_code
        assert "Request r1 timed out after 0.5s." == answer.text
        wait_until(lambda: "late: cancelled" in late.report.remote().result()["done"], "the CancelledError")
        assert 200 == httpx.get(f"{hurried}/late/describe").status_code

    def test_a_stream_that_takes_longer_is_cut(self, hurried: str, late: DeploymentHandle) -> None:
        with (
            httpx.stream("GET", f"{hurried}/late/stream_gated", timeout=10) as answer,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            list(answer.iter_raw())
        wait_until(lambda: "stream closed" in late.noted.remote().result(), "the generator's finally")

    def test_a_header_may_shorten_the_time_only(self, hurried: str, late: DeploymentHandle) -> None:
        def ask(seconds: str) -> httpx.Response:
            headers = {"X-Request-Timeout-Seconds": seconds}
            return httpx.get(f"{hurried}/late/waits?door=x", headers=headers, timeout=10)

        assert (408, "0.01s." in ask("0.01").text) == (ask("0.01").status_code, True)
        for longer in ("0", "60", "nonsense"):
            assert "0.5s." in ask(longer).text
