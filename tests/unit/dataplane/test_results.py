"""JSON as Ray Serve and FastAPI write it, and header lines that hold nothing but headers."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from enum import Enum, IntEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.results import HeaderError, convert, from_json, header_block, plain, to_json

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def finite(value: Any) -> Any:
    """Return what JSON can hold of a value: no NaN, no infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@given(plain_values)
def test_plain_values_survive(value: Any) -> None:
    assert finite(value) == json.loads(to_json(value))


def outcome(function: Any, body: bytes) -> str:
    try:
        return repr(function(body))
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


@given(plain_values, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]), st.booleans())
def test_a_body_is_read_as_the_standard_library_reads_it(value: Any, encoding: str, is_ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii).encode(encoding, "surrogatepass")

    assert outcome(json.loads, body) == outcome(from_json, body)


@given(
    st.binary(max_size=40)
    | st.text(alphabet='[]{}",:0123456789.eE+-truefalsn \\ud8', max_size=40).map(str.encode)
)
def test_a_broken_body_is_the_standard_librarys_error(body: bytes) -> None:
    assert outcome(json.loads, body) == outcome(from_json, body)


@pytest.mark.parametrize(
    "text", ["1e999", "NaN", "-Infinity", '"\\ud800"', "123456789012345678901234567890", '{"a":1,"a":2}']
)
def test_the_odd_forms_are_read_too(text: str) -> None:
    assert repr(json.loads(text)) == repr(from_json(text.encode()))


@given(plain_values)
def test_the_slow_way_writes_the_same(value: Any) -> None:
    # A tuple of bytes forces the slow way for the whole value.
    assert [finite(value), ["x"]] == json.loads(to_json([value, (b"x",)]))


@given(st.lists(st.binary() | st.text() | st.integers(), max_size=40))
def test_bytes_are_text_or_an_error(values: list[Any]) -> None:
    try:
        expected = [one.decode() if isinstance(one, bytes) else one for one in values]
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            to_json(values)
        return
    assert expected == json.loads(to_json(values))


class Kind(Enum):
    A = "a"


class Number(IntEnum):
    ONE = 1


class Text(str):
    pass


class Whole(int):
    pass


class Record(msgspec.Struct):
    x: int
    y: bytes


class Attributes:
    def __init__(self) -> None:
        self.a = 1
        self._b = [b"x"]


class Pairs:
    def __iter__(self) -> Any:
        return iter([("k", 1)])


@pytest.mark.parametrize(
    "value, expected",
    [
        ({Kind.A: Number.ONE}, {"a": 1}),
        ([Text("t"), Whole(5), Number.ONE], ["t", 5, 1]),
        (OrderedDict(b=1, a=(1, 2)), {"b": 1, "a": [1, 2]}),
        ({1: {2.5: None}, None: 0}, {"1": {"2.5": None}, "null": 0}),
        (Record(1, b"y"), {"x": 1, "y": "y"}),
        (Attributes(), {"a": 1, "_b": ["x"]}),
        (Pairs(), {"k": 1}),
        ([(number for number in range(2))], [[0, 1]]),
        ([2**64, -(2**200)], [2**64, -(2**200)]),
        ({"a": memoryview(b"m")}, {"a": "m"}),
    ],
)
def test_odd_values(value: Any, expected: Any) -> None:
    assert expected == json.loads(to_json(value))


@pytest.mark.parametrize("value", [object(), 1j, len, int, {(1, 2): 3}, [object()], {"x": Ellipsis}])
def test_what_has_no_json_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        to_json(value)


@pytest.mark.parametrize("value", [(one for one in "ab"), plain])
def test_what_is_no_answer_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        convert(value)


def test_content_types() -> None:
    def kind(value: Any) -> bytes:
        return convert(value)[0].removeprefix(b"content-type: ").strip()

    assert b"text/plain; charset=utf-8" == kind("x") == kind(Text("x"))
    assert b"text/plain" == kind(b"x") == kind(None)
    assert b"application/json" == kind({}) == kind([]) == kind(1) == kind(True)


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=12)), max_size=4))
def test_headers_never_split_a_response(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        block, _ = header_block(headers)
    except HeaderError:
        return

    lines = block.split(b"\r\n")
    assert b"" == lines.pop()
    assert len(lines) <= len(headers)
    for line in lines:
        assert b": " in line
        assert not set(b"\r\n\0") & set(line)


@pytest.mark.parametrize("name", [b"Connection", b"Transfer-Encoding", b"upgrade", b"Date", b"Keep-Alive"])
def test_headers_of_the_connection_are_left_to_the_ingress(name: bytes) -> None:
    assert (b"x-a: 1\r\n", False) == header_block([(name, b"x"), (b"X-A", b"1")])


def test_a_length_is_noticed() -> None:
    assert (b"content-length: 5\r\n", True) == header_block([(b"Content-Length", b"5")])
