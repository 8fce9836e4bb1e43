"""Websockets through the whole stack: messages, ends from both sides, errors, slow readers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.integration.serve.conftest import RunApp
from tests.integration.serve.fastapi_apps import Shop
from tests.integration.serve.http_apps import Web
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.handle import DeploymentHandle

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(scope="module")
def shop(url: str) -> Iterator[DeploymentHandle]:
    yield serve.run(Shop.bind("echo "), name="shop", route_prefix="/shop")
    serve.delete("shop")


@contextmanager
def opened(url: str, path: str, **options: Any) -> Iterator[ClientConnection]:
    address = url.replace("http:", "ws:") + path
    with connect(address, open_timeout=10, close_timeout=5, ping_interval=None, **options) as websocket:
        yield websocket


def noted(shop: DeploymentHandle, start: str) -> str:
    return str(
        wait_until(
            lambda: next((n for n in shop.noted.remote().result() if n.startswith(start)), ""),
            f"note {start!r}",
        )
    )


def settled(ask: Callable[[], int]) -> None:
    """Wait until a number stays the same: every buffer on the way is full."""
    seen: list[int] = []

    def same() -> bool:
        seen.append(ask())
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    wait_until(same, "a count that stays the same")


def test_text_and_bytes_are_echoed(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/echo") as websocket:
        for text in ("", "hello", "ü" * 50_000):
            websocket.send(text)
            assert "echo " + text == websocket.recv(10)
        for data in (b"", b"ab", b"ab" * 300_000):
            websocket.send(data)
            assert data[::-1] == websocket.recv(10)


def test_messages_keep_their_order(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/echo") as websocket:
        for number in range(2000):
            websocket.send(str(number))
        assert [f"echo {number}" for number in range(2000)] == [websocket.recv(10) for _ in range(2000)]


def test_fragmented_messages_arrive_whole(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/echo") as websocket:
        websocket.send(iter(["a", "b", "c"]))
        assert "echo abc" == websocket.recv(10)


def test_pings_are_answered(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/echo") as websocket:
        assert websocket.ping().wait(5)


def test_the_clients_close_reaches_the_handler(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/echo") as websocket:
        websocket.send("x")
        websocket.recv(5)
        websocket.close(4010, "client done")

    assert "disconnected 4010 client done" == noted(shop, "disconnected 4010")


def test_a_vanished_client_reaches_the_handler(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/echo") as websocket:
        websocket.send("x")
        websocket.recv(5)
        websocket.socket.shutdown(socket.SHUT_RDWR)

    assert noted(shop, "disconnected 1006")


def test_parameters_dependencies_and_the_servers_close(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/typed/ada?limit=5", subprotocols=["other", "chat"]) as websocket:
        assert "chat" == websocket.subprotocol
        expected = {"name": "ada", "limit": 5, "state": "loaded at startup"}
        assert expected == json.loads(websocket.recv(5))
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(5)

    assert closed.value.rcvd is not None
    assert (4001, "enough") == (closed.value.rcvd.code, closed.value.rcvd.reason)


@pytest.mark.parametrize("path", ["/shop/refuse", "/shop/nothing", "/shop/typed/x?limit=0"])
def test_refused_handshakes_are_403(shop: DeploymentHandle, url: str, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(url, path):
        pass

    assert 403 == refused.value.response.status_code


def test_unknown_routes_are_404(shop: DeploymentHandle, url: str) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(url, "/nowhere"):
        pass

    assert 404 == refused.value.response.status_code


def test_an_error_closes_with_1011(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/breaks") as websocket:
        assert "before" == websocket.recv(5)
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(5)

    assert closed.value.rcvd is not None
    assert 1011 == closed.value.rcvd.code
    assert "secret" not in closed.value.rcvd.reason


def test_an_error_before_accepting_is_500(shop: DeploymentHandle, url: str) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(url, "/shop/breaks-early"):
        pass

    assert 500 == refused.value.response.status_code
    assert b"secret" not in (refused.value.response.body or b"")


def test_returning_closes_normally(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/returns") as websocket, pytest.raises(ConnectionClosed) as closed:
        websocket.recv(5)

    assert closed.value.rcvd is not None
    assert 1000 == closed.value.rcvd.code


def test_a_deployment_without_websockets_refuses(run_app: RunApp, url: str) -> None:
    run_app(Web.bind(), name="web", route_prefix="/web")

    with pytest.raises(InvalidStatus) as refused, opened(url, "/web/describe"):
        pass

    assert 403 == refused.value.response.status_code


def test_a_vanished_slow_reader_ends_the_sender(shop: DeploymentHandle, url: str) -> None:
    with opened(url, "/shop/flood", max_queue=1) as websocket:
        websocket.recv(5)
        settled(lambda: shop.how_many.remote().result())
        websocket.socket.shutdown(socket.SHUT_RDWR)

    assert noted(shop, "flood ended")


@pytest.mark.parametrize("size, count", [(0, 60_000), (1, 60_000), (100_000, 100)])
def test_messages_to_a_slow_handler_all_arrive(run_app: RunApp, url: str, size: int, count: int) -> None:
    handle = run_app(Shop.bind(""), name="slow", route_prefix="/slow")

    with opened(url, "/slow/count") as websocket:
        websocket.send(str(count))
        wait_until(lambda: handle.count.remote("counting").result() == 1, "the handler to wait")
        sent: list[int] = []

        def send() -> None:
            for number in range(count):
                websocket.send(b"x" * size)
                sent.append(number)

        sender = threading.Thread(target=send)
        sender.start()
        settled(lambda: len(sent))
        handle.open.remote("counting").result()
        assert size * count == json.loads(websocket.recv(20))
        sender.join(10)


def test_many_websockets_at_once(shop: DeploymentHandle, url: str) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(opened(url, "/shop/echo")) for _ in range(40)]
        for number, websocket in enumerate(sockets):
            websocket.send(str(number))
        assert [f"echo {n}" for n in range(40)] == [websocket.recv(5) for websocket in sockets]
