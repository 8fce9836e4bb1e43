"""The fuzzer finds what it should, and finds nothing in our server; each old find is replayed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.fuzz_http import Fuzzer, Report, judge, make_case
from tests.faults.http_server import Server, serve

CORPUS = sorted((Path(__file__).parent.parent / "corpus" / "http").glob("*.bin"))


def run(port: int, num_requests: int, seed: int, pid: int | None = None) -> Report:
    return Fuzzer(("127.0.0.1", port), seed, 16, pid).run(
        range(num_requests), num_requests, lambda report: None
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with serve(tmp_path_factory.mktemp("fuzz"), "--defer") as running:
        yield running


def test_ten_thousand_bad_requests_break_nothing(server: Server) -> None:
    report = run(server.port, 10_000, seed=20, pid=server.process.pid)

    assert [] == report.finds
    assert report.statuses[400] > 3000
    assert report.statuses[101] > 300
    assert server.ask().startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus(path: Path, server: Server) -> None:
    raw = path.read_bytes()
    with server.connect() as sock:
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass

    assert "" == judge(answer)[1]
    assert server.ask().startswith(b"HTTP/1.1 200 OK")


def test_there_is_a_corpus() -> None:
    assert CORPUS


def test_case_is_the_same_every_time() -> None:
    assert [make_case(5, n) for n in range(200)] == [make_case(5, n) for n in range(200)]
    assert make_case(5, 1) != make_case(6, 1)


@pytest.mark.parametrize(
    "answer, wrong",
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", ""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" * 2, ""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", ""),
        (b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n", ""),
        (b"", ""),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "status 500"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 503 Busy\r\n\r\n", "status 503"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokTraceback", "no HTTP at byte 40"),
        (b"HTTP/1.1 200 OK\r\nx: a\nb\r\n\r\n", "control byte in a header"),
    ],
)
def test_judge(answer: bytes, wrong: str) -> None:
    assert wrong == judge(answer)[1]


def test_fuzzer_finds_a_500_and_a_server_that_does_not_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.fuzz_http.HANG_S", 0.3)
    good = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    def breaks(sock: socket.socket) -> None:
        data = sock.recv(65536)
        sock.sendall(
            good
            if data == b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            else good.replace(b"200", b"500")
        )
        sock.close()

    kept = []

    def hangs(sock: socket.socket) -> None:
        if sock.recv(65536) == b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":
            sock.sendall(good)
            sock.close()
        else:
            kept.append(sock)

    broken = with_server(breaks)
    hanging = with_server(hangs)
    for sock in kept:
        sock.close()

    assert {"status 500"} == {reason for _, reason in broken.finds}
    assert all("still open" in reason for _, reason in hanging.finds)
    assert hanging.finds


def with_server(behave: Callable[[socket.socket], None]) -> Report:
    """Run a few cases against a thread that behaves like this."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            try:
                behave(sock)
            except OSError:
                sock.close()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        return run(listener.getsockname()[1], 10, seed=3)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
