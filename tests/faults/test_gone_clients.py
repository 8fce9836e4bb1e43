"""Clients that leave in the middle of a request through three deployments, one by one and all at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from bench.apps.serve_cancel import app
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.handle import DeploymentHandle

CLIENTS = 200


@pytest.fixture
def leaf() -> Iterator[DeploymentHandle]:
    serve.start(http_options={"port": 0})
    serve.run(app)
    yield serve.get_deployment_handle("Leaf", "default")
    serve.shutdown()


def ask(name: str, query: str = "do=work") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", urlsplit(serve.http_address()).port or 0), timeout=20)
    connection.sendall(f"GET /?name={name}&{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return connection


def test_all_work_of_clients_that_leave_at_once_is_cancelled_and_no_slot_is_lost(
    leaf: DeploymentHandle,
) -> None:
    for turn in range(2):
        clients = [ask(f"{turn}-{number}") for number in range(CLIENTS)]
        wait_until(
            lambda turn=turn: len(leaf.seen.remote().result()["began"]) == CLIENTS * (turn + 1),
            "all to begin",
        )

        for client in clients:
            client.close()

        wait_until(
            lambda turn=turn: len(leaf.seen.remote().result()["cancelled"]) == CLIENTS * (turn + 1),
            "all work to be cancelled",
        )
    middle = serve.get_deployment_handle("Middle", "default")
    calls = [middle.pass_on.remote("work", f"free {number}", 0.0, 0.0) for number in range(1900)]
    for call in calls:
        call.result(timeout_s=20)


def test_the_caller_of_a_thread_is_released_and_the_thread_keeps_its_slot(leaf: DeploymentHandle) -> None:
    middle = serve.get_deployment_handle("Middle", "default")
    client = ask("thread", "do=block")
    wait_until(lambda: leaf.seen.remote().result()["in_threads"] == 1, "the thread to begin")

    client.close()

    wait_until(lambda: "thread" in middle.seen.remote().result(), "the caller to be released")
    assert 1 == leaf.seen.remote().result()["in_threads"]
    leaf.open.remote().result()
    wait_until(lambda: leaf.seen.remote().result()["in_threads"] == 0, "the thread to return")


def test_nothing_begins_after_its_deadline(leaf: DeploymentHandle) -> None:
    clients = []
    for number in range(CLIENTS):
        client = socket.create_connection(("127.0.0.1", urlsplit(serve.http_address()).port or 0), timeout=20)
        query = f"name={number}&pause={0.2 * number / CLIENTS:.4f}&seconds=30"
        client.sendall(
            f"GET /?{query} HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Seconds: 0.1\r\n\r\n".encode()
        )
        clients.append(client)

    answers = {client.recv(65536).split()[1] for client in clients}

    for client in clients:
        client.close()
    seen = leaf.seen.remote().result()
    assert {b"408"} == answers
    assert [] == seen["late"]
    wait_until(
        lambda: seen["began"].keys() == leaf.seen.remote().result()["cancelled"].keys(),
        "what began in time to be cancelled",
    )
