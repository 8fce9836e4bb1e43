"""What a handler returns and what a client gets for it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.serve.http_apps import BareGenerator, Values
from trygon import serve

pytestmark = pytest.mark.timeout(30)

TEXT, BYTES, JSON = "text/plain; charset=utf-8", "text/plain", "application/json"


@pytest.fixture(scope="module")
def values(url: str) -> Iterator[None]:
    serve.run(Values.bind(), name="values", route_prefix="/values")
    yield
    serve.delete("values")


@pytest.mark.parametrize(
    "name, content_type, body",
    [
        ("str", TEXT, "héllo".encode()),
        ("empty", TEXT, b""),
        ("bytes", BYTES, b"\x00\xff"),
        ("none", BYTES, b""),
        ("text", TEXT, b"plain"),
        ("html", "text/html; charset=utf-8", b"<p>"),
    ],
)
def test_text_and_bytes_are_sent_as_they_are(
    values: None, client: httpx.Client, name: str, content_type: str, body: bytes
) -> None:
    answer = client.get("/values", params={"name": name})

    assert (200, content_type, body) == (answer.status_code, answer.headers["content-type"], answer.content)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("dict", {"a": 1, "ü": "é"}),
        ("list", [1, "two", None, True, 1.5]),
        ("tuple", [1, 2]),
        ("set", [1]),
        ("int", 3),
        ("float", 1.5),
        ("bool", True),
        ("big", 2**70),
        ("nan", None),
        ("infinite", {"x": [None, 1.0]}),
        ("numpy int", 3),
        ("numpy float", 1.5),
        ("numpy bool", True),
        ("numpy array", [[0, 1, 2], [3, 4, 5]]),
        ("numpy nested", {"a": [[0, 1], 1], "b": {"c": 0.5}}),
        ("numpy nan", [None, 1.0]),
        ("numpy text", ["a", "b"]),
        ("numpy keys", {"1": 2}),
        ("pandas frame", [{"a": 1, "b": "x"}, {"a": 2, "b": None}]),
        ("pandas times", [{"t": "2020-01-02T00:00:00"}]),
        ("pandas nested", {"frame": [{"a": 1.5}]}),
        ("pandas series", {"x": 1.5, "y": 2.5}),
        ("pandas missing", {"when": None, "what": None}),
        ("pydantic", {"name": "Merlot", "born": "2020-01-02", "price": None}),
        ("pydantic nested", [{"name": "Merlot", "born": "2020-01-02", "price": None}]),
        ("secret", {"password": "**********"}),
        ("dataclass", {"x": 1, "y": 2.5}),
        ("dataclass nested", {"p": [{"x": 1, "y": 2.5}]}),
        ("datetime", "2020-01-02T03:04:05+00:00"),
        ("date", ["2020-01-02", "03:04:00"]),
        ("timedelta", 90.005),
        ("decimal", [1.5, 2]),
        ("uuid", "00000000-0000-0000-0000-000000000005"),
        ("enum", {"red": "red"}),
        ("path", "/a"),
        ("named tuple", [1, 2]),
        ("deque", [1]),
        ("counter", {"a": 2, "b": 1}),
        ("bytes nested", {"b": "abc", "deep": [{"c": "d"}]}),
        ("odd keys", {"null": 1, "1.5": 2, "3": 4}),
        ("surrogate", {"a": "\ud800"}),
        ("exception", {"e": "boom"}),
        ("large json", list(range(300_000))),
    ],
)
def test_everything_else_is_compact_json(
    values: None, client: httpx.Client, name: str, expected: Any
) -> None:
    answer = client.get("/values", params={"name": name})

    assert (200, JSON) == (answer.status_code, answer.headers["content-type"])
    assert expected == json.loads(answer.content)
    if not isinstance(expected, str):
        assert b", " not in answer.content
        assert b": " not in answer.content


@pytest.mark.parametrize(
    "name", ["object", "complex", "function", "tuple keys", "bad bytes", "generator", "deep", "split"]
)
def test_what_has_no_http_form_is_500(values: None, client: httpx.Client, name: str) -> None:
    answer = client.get("/values", params={"name": name})

    assert (500, "Internal Server Error") == (answer.status_code, answer.text)
    assert "set-cookie" not in answer.headers
    assert 3 == client.get("/values?name=int").json()


def test_starlette_responses_are_sent_as_they_are(values: None, client: httpx.Client) -> None:
    def get(name: str) -> httpx.Response:
        return client.get("/values", params={"name": name})

    made = get("response")
    assert (201, "1", "text/x; charset=utf-8", b"x") == (
        made.status_code,
        made.headers["x-a"],
        made.headers["content-type"],
        made.content,
    )
    assert (404, {"a": 1}) == (get("json").status_code, get("json").json())
    assert (307, "/elsewhere") == (get("redirect").status_code, get("redirect").headers["location"])
    assert ["a=1; Path=/; SameSite=lax", "b=2; Path=/; SameSite=lax"] == get("cookies").headers.get_list(
        "set-cookie"
    )
    assert b"FileResponse" in get("file").content
    assert 3_000_000 == len(get("large").content)


@pytest.mark.parametrize("name, status", [("no content", 204), ("not modified", 304)])
def test_answers_without_a_body_leave_the_connection_usable(
    values: None, url: str, name: str, status: int
) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        for _ in range(3):
            connection.request("GET", f"/values?name={name.replace(' ', '%20')}")
            answer = connection.getresponse()
            assert (status, b"") == (answer.status, answer.read())
            assert answer.getheader("transfer-encoding") is None
    finally:
        connection.close()


@pytest.mark.parametrize("name", ["dict", "str", "large", "response", "file"])
def test_head_has_the_headers_of_get_and_no_body(values: None, url: str, name: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", f"/values?name={name}")
        get = connection.getresponse()
        body = get.read()
        connection.request("HEAD", f"/values?name={name}")
        head = connection.getresponse()
        assert (get.status, b"") == (head.status, head.read())
        assert get.getheader("content-type") == head.getheader("content-type")
        assert str(len(body)) == head.getheader("content-length")
    finally:
        connection.close()


def test_a_generator_handler_is_500_and_says_why(url: str, client: httpx.Client) -> None:
    serve.run(BareGenerator.bind(), name="bare", route_prefix="/bare")
    try:
        assert 500 == client.get("/bare").status_code
    finally:
        serve.delete("bare")
