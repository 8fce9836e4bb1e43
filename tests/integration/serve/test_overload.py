"""Queues at the ingress and in handles with real processes: their bound, their order, and what refused clients get."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.integration.serve.conftest import RunApp
from tests.integration.serve.limit_apps import Keeper, Limited
from tests.waiting import wait_until
from trygon import serve

pytestmark = pytest.mark.timeout(40)


class Peer:
    """A client that has sent one request and reads later."""

    def __init__(self, url: str, path: str, *headers: str, body: bytes = b"") -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.sock = socket.create_connection((parts.hostname, parts.port or 80), timeout=20)
        lines = [f"GET {path} HTTP/1.1", "Host: here", *headers, "", ""]
        self.sock.sendall("\r\n".join(lines).encode() + body)

    def status(self) -> int:
        return int(self.head().split()[1])

    def head(self) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            assert more, "the connection ended without an answer"
            data += more
        return data.decode().lower()

    def has_answer(self) -> bool:
        self.sock.setblocking(False)
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self.sock.settimeout(20)


@contextmanager
def asking(url: str, path: str, *tenants: str) -> Iterator[list[Peer]]:
    """Send one request for each tenant, in this order."""
    with ExitStack() as stack:
        peers = []
        for tenant in tenants:
            peer = Peer(url, path, f"X-Tenant: {tenant}")
            stack.callback(peer.sock.close)
            peers.append(peer)
        yield peers


def test_a_hundred_requests_wait_and_one_more_is_refused_at_once(url: str, run_app: RunApp) -> None:
    run_app(Limited.options(max_ongoing_requests=1).bind(Keeper.bind()), name="plain", route_prefix="/plain")
    keeper = serve.get_deployment_handle("Keeper", "plain")
    with asking(url, "/plain?door=d", *["-"] * 102) as peers:
        refused = wait_until(lambda: next((p for p in peers if p.has_answer()), None), "a refusal")
        head = refused.head()
        again = Peer(url, "/plain?door=d")
        assert 503 == again.status()
        again.sock.close()
        keeper.open.remote("d").result()
        statuses = [peer.status() for peer in peers if peer is not refused]

    assert [200] * 101 == statuses
    assert head.startswith("http/1.1 503")
    assert "\r\nretry-after: " in head
    assert "connection: close" not in head


def test_a_client_that_asks_first_is_told_before_it_sends_its_body(url: str, run_app: RunApp) -> None:
    run_app(Limited.options(max_ongoing_requests=1).bind(Keeper.bind()), name="ask", route_prefix="/ask")
    keeper = serve.get_deployment_handle("Keeper", "ask")
    with asking(url, "/ask?door=d", *["-"] * 101) as peers:
        upload = ("Expect: 100-continue", "Content-Length: 5")

        def refused() -> str | None:
            peer = Peer(url, "/ask?door=d", *upload)
            head = peer.head()
            peer.sock.close()
            return None if head.startswith("http/1.1 100") else head

        head = wait_until(refused, "a full queue")
        keeper.open.remote("d").result()
        statuses = {peer.status() for peer in peers}

    assert {200} == statuses
    assert head.startswith("http/1.1 503")
    assert "\r\nretry-after: " in head


@pytest.mark.parametrize(
    "flood, small",
    [({"fairness_key": "big"}, {"fairness_key": "small"}), ({}, {"priority": 1}), ({"priority": -1}, {})],
)
def test_a_call_of_another_tenant_or_a_more_important_one_overtakes_a_flood(
    run_app: RunApp, flood: dict[str, Any], small: dict[str, Any]
) -> None:
    handle = run_app(
        Limited.options(max_ongoing_requests=1).bind(Keeper.bind()), name="turns", route_prefix=None
    )

    async def ask() -> None:
        many = [handle.options(**flood).step.remote(number) for number in range(2000)]
        await asyncio.gather(*many, handle.options(**small).step.remote("small"))

    asyncio.run(ask())

    order = handle.seen.remote().result()["order"]
    assert list(range(2000)) == [name for name in order if name != "small"]
    assert order.index("small") < 2000


def test_a_priority_is_a_whole_number(run_app: RunApp) -> None:
    handle = run_app(Limited.bind(Keeper.bind()), name="odd", route_prefix=None)

    with pytest.raises(ValueError, match="whole number"):
        handle.options(priority="high")  # type: ignore[arg-type]


def test_a_replica_that_learns_its_limit_takes_more_than_it_began_with(run_app: RunApp) -> None:
    handle = run_app(
        Limited.options(max_ongoing_requests="auto").bind(Keeper.bind()), name="auto", route_prefix=None
    )

    async def press() -> None:
        for _ in range(10):
            await asyncio.gather(*(handle.nap.remote() for _ in range(300)))

    asyncio.run(press())

    assert handle.seen.remote().result()["most"] > 4
