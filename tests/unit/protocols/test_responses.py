"""Constant parts of answers."""

from __future__ import annotations

import pytest

from trygon.protocols.http.responses import Prefixes, content_length, length_line, without_length


def test_prefix_holds_status_and_date() -> None:
    prefixes = Prefixes()
    prefixes.set_time(784111777.0)

    assert b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-request-id: " == prefixes[200]
    assert prefixes[404].startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert prefixes[299].startswith(b"HTTP/1.1 299 \r\n")


def test_prefixes_follow_the_second() -> None:
    prefixes = Prefixes()
    prefixes.set_time(784111777.0)
    first = prefixes[200]
    prefixes.set_time(784111777.9)
    same = prefixes[200]
    prefixes.set_time(784111778.0)

    assert first is same
    assert b":38 GMT" in prefixes[200]


@pytest.mark.parametrize(
    "head, expected",
    [
        (b"content-length: 5\r\n", 5),
        (b"a: b\r\nContent-Length:  5 \r\nc: d\r\n", 5),
        (b"x-content-length: 5\r\n", -1),
        (b"content-length: 5\r\ncontent-length: 5\r\n", -1),
        (b"content-length: x\r\n", -1),
        (b"content-length: -5\r\n", -1),
        (b"", -1),
    ],
)
def test_content_length_of_an_answer(head: bytes, expected: int) -> None:
    assert expected == content_length(head)


def test_length_is_taken_out_alone() -> None:
    head = b"content-length: 5\r\nx-content-length: 6\r\nContent-Length: 7\r\n"

    assert b"x-content-length: 6\r\n" == without_length(head)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 10**9])
def test_length_line(size: int) -> None:
    assert b"content-length: %d\r\n" % size == length_line(size)
