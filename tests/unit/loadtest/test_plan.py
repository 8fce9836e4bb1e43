from __future__ import annotations

import pytest

from trygon.errors import ConfigError
from trygon.loadtest.fleet import split
from trygon.loadtest.plan import LoadPlan, Target, encode_request, parse_url

HERE = Target("http", "127.0.0.1", 8000, "/")


@pytest.mark.parametrize(
    "text, target",
    [
        ("http://127.0.0.1:8000", HERE),
        ("127.0.0.1:8000/", HERE),
        ("https://example.org/a?b=c#d", Target("https", "example.org", 443, "/a?b=c")),
        ("http://[::1]:81/x", Target("http", "::1", 81, "/x")),
    ],
)
def test_a_url_is_read(text: str, target: Target) -> None:
    assert target == parse_url(text)


@pytest.mark.parametrize(
    "text, said",
    [
        ("ftp://a/", "begins with http"),
        ("http:///x", "names no host"),
        ("http://a:port/", "is no URL"),
        ("http://user:secret@a/", "--bearer-file"),
        ("http://a/ä", "written as %XX"),
    ],
)
def test_what_is_no_url_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        parse_url(text)

    assert "secret" not in str(refused.value)


def test_a_request_has_its_length_and_host() -> None:
    raw = encode_request(HERE, "POST", [("X-A", "1")], b"{}")

    assert raw == (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: trygon-load\r\nX-A: 1\r\nContent-Length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize(
    "method, header",
    [
        ("GE T", ("A", "b")),
        ("GET", ("A\n", "b")),
        ("GET", ("A", "b\r\nC: d")),
        ("GET", ("Content-Length", "3")),
    ],
)
def test_what_would_break_the_framing_is_refused(method: str, header: tuple[str, str]) -> None:
    with pytest.raises(ConfigError):
        encode_request(HERE, method, [header], b"")


def test_senders_share_connections_and_requests() -> None:
    plan = LoadPlan(target=HERE, address="127.0.0.1", requests=(b"x",), connections=10, max_requests=8)

    parts = split(plan, 3)

    assert [4, 3, 3] == [part.connections for part in parts]
    assert [3, 3, 2] == [part.max_requests for part in parts]
