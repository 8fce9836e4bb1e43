"""`trygon load` against servers that answer, refuse, hang and talk nonsense."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import Command, run

Handle = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def serving(handle: Handle) -> Iterator[int]:
    """Run a server that gives each connection to `handle`, on a thread for each; yield its port."""
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(connection)
                thread = threading.Thread(target=one, args=(connection,))
                thread.start()
                threads.append(thread)

        def one(connection: socket.socket) -> None:
            with connection:
                try:
                    handle(connection)
                except OSError:
                    return

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for connection in connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            for thread in threads:
                thread.join()


def answering(answer: bytes, seen: list[bytes] | None = None) -> Handle:
    def handle(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            if seen is not None:
                seen.append(data)
            connection.sendall(answer)

    return handle


def measured(*arguments: str, cwd: Path) -> tuple[int, dict[str, Any]]:
    done = run("load", *arguments, "--json", cwd=cwd)
    return done.returncode, json.loads(done.stdout)


def test_a_closed_loop_sends_as_many_as_asked_for(tmp_path: Path) -> None:
    with serving(answering(OK)) as port:
        status, found = measured(
            f"127.0.0.1:{port}", "-n", "200", "-c", "4", "--processes", "2", cwd=tmp_path
        )

    assert 0 == status
    assert (200, 200, 0) == (found["requests"], found["completed"], found["failed"])
    assert 4 == found["connections"]
    assert 0 < found["latency_s"]["p50"] <= found["latency_s"]["max"]


def test_an_open_loop_counts_the_wait_of_requests_that_a_slow_server_held_up(tmp_path: Path) -> None:
    def one_stall(connection: socket.socket) -> None:
        stalled = False
        while connection.recv(65536):
            if not stalled:
                stalled = True
                threading.Event().wait(0.5)
            connection.sendall(OK)

    with serving(one_stall) as port:
        _, found = measured(
            f"127.0.0.1:{port}", "-r", "100/s", "--arrivals", "constant", "-d", "1s", "-c", "1", cwd=tmp_path
        )

    # One connection, 50 requests due while it stalled: a closed loop would see one slow answer.
    late = found["latency_s"]
    assert late["p50"] < 0.5
    assert late["p90"] > 0.3
    assert "open" == found["loop"]


def test_bodies_are_sent_in_turn_with_headers_and_a_token_that_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    (tmp_path / "token").write_text("hidden-token\n")
    seen: list[bytes] = []
    with serving(answering(OK, seen)) as port:
        done = run(
            *("load", f"127.0.0.1:{port}/x", "-n", "4", "-c", "1", "--bodies", "rows.jsonl"),
            *("--bearer-file", "token", "-H", "X-Test: yes"),
            cwd=tmp_path,
        )

    assert 0 == done.returncode, done.stderr
    assert [b'{"a": 1}', b'{"a": 2}'] * 2 == [data.rpartition(b"\r\n\r\n")[2] for data in seen]
    assert b"POST /x HTTP/1.1" in seen[0]
    assert b"Content-Type: application/json" in seen[0]
    assert b"X-Test: yes" in seen[0]
    assert b"Authorization: Bearer hidden-token" in seen[0]
    assert "hidden" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "handle, kind",
    [
        (answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull"), "HTTP 503"),
        (answering(b"nonsense\r\n\r\n"), "malformed answer"),
        (lambda connection: connection.recv(1), "connection "),
        (lambda connection: threading.Event().wait(1.5) and None, "timeout"),
    ],
)
def test_each_kind_of_failure_is_told_apart(handle: Handle, kind: str, tmp_path: Path) -> None:
    with serving(handle) as port:
        status, found = measured(
            f"127.0.0.1:{port}", "-n", "3", "-c", "1", "--timeout", "300ms", cwd=tmp_path
        )

    assert 1 == status, "nothing was answered"
    assert found["failed"] >= 3
    assert all(name.startswith(kind) for name in found["failures"])
    if kind == "HTTP 503":
        assert "full" == found["failures"][kind]["example"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_every_framing_of_an_answer_is_read(answer: bytes, tmp_path: Path) -> None:
    with serving(answering(answer)) as port:
        status, found = measured(f"127.0.0.1:{port}", "-n", "20", "-c", "2", cwd=tmp_path)

    assert (0, 20, 2) == (status, found["completed"], found["connections"])


def test_an_answer_may_end_with_its_connection_and_a_head_has_no_body(tmp_path: Path) -> None:
    def until_closed(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nthe rest")

    with serving(until_closed) as port:
        assert (0, 5) == _completed(measured(f"127.0.0.1:{port}", "-n", "5", "-c", "1", cwd=tmp_path))
    with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")) as port:
        assert (0, 5) == _completed(
            measured(f"127.0.0.1:{port}", "-n", "5", "-c", "1", "-X", "head", cwd=tmp_path)
        )


def _completed(found: tuple[int, dict[str, Any]]) -> tuple[int, int]:
    return found[0], found[1]["completed"]


def test_a_broken_limit_is_the_exit_status(tmp_path: Path) -> None:
    with serving(answering(OK)) as port:
        kept = run("load", f"127.0.0.1:{port}", "-n", "10", "--fail-if", "errors>0", cwd=tmp_path)
        broken = run(
            "load",
            f"127.0.0.1:{port}",
            "-n",
            "10",
            "--fail-if",
            "rate<1000000/s",
            "-o",
            "o.json",
            cwd=tmp_path,
        )

    assert 0 == kept.returncode
    assert 3 == broken.returncode
    assert "failed: rate<1000000/s, measured" in broken.stdout
    assert ["rate<1000000/s"] == json.loads((tmp_path / "o.json").read_text())["broken_limits"]


def test_ctrl_c_shows_what_was_seen_so_far(tmp_path: Path) -> None:
    with serving(answering(OK)) as port:
        command = Command("load", f"127.0.0.1:{port}", "-d", "60s", "-c", "2", cwd=tmp_path, at_terminal=True)
        try:
            command.wait_for("in flight")
            command.press_ctrl_c()

            assert 130 == command.wait()
        finally:
            command.close()

    assert "latency" in command.output
    assert "Traceback" not in command.output


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["ftp://x/"], "begins with http"),
        (["127.0.0.1:1"], "is the service running there?"),
        (["no-such-host.invalid"], "is not known"),
        (["127.0.0.1:1", "--rate", "fast"], "wanted a rate such as"),
        (["127.0.0.1:1", "--body-file", "missing"], "missing"),
        (["127.0.0.1:1", "--fail-if", "p99"], "wanted a condition"),
    ],
)
def test_a_mistake_is_one_clear_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run("load", *arguments, cwd=tmp_path)

    assert 0 != done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr
