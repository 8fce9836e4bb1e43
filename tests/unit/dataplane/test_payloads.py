"""Values to bytes and back, with and without shared memory; failures name the value and the remedy."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.dataplane.payloads import SEGMENT_THRESHOLD_BYTES, dump, load
from trygon.dataplane.segments import Segment, open_segment
from trygon.errors import SerializationError

np = pytest.importorskip("numpy")

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def travel(value: Any, serialization: str = "cloudpickle") -> Any:
    payload = dump(value, serialization)
    try:
        return load(payload.body, payload.meta)
    finally:
        payload.close()


@given(values)
def test_plain_values_travel(value: Any) -> None:
    assert value == travel(value)


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=4))
def test_arrays_of_any_size_travel_together(sizes: list[int]) -> None:
    arrays = [np.arange(size, dtype=np.int32) for size in sizes]

    got = travel(tuple(arrays))

    assert all(np.array_equal(one, two) for one, two in zip(arrays, got, strict=True))
    assert all(one.flags.writeable for one in got)


@pytest.mark.parametrize("serialization", ["msgpack", "orjson", "json"])
@pytest.mark.parametrize("size", [1, SEGMENT_THRESHOLD_BYTES])
def test_other_serializations_carry_plain_data(serialization: str, size: int) -> None:
    value = {"a": ["x" * size, 1, 2.5, None]}

    assert value == travel(value, serialization)


def test_only_large_values_take_a_segment() -> None:
    small, large = dump(b"x" * 1000), dump(b"x" * SEGMENT_THRESHOLD_BYTES)

    assert small.segment is None
    assert large.segment is not None
    assert b"" == large.body
    large.close()


def test_a_value_of_main_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> int:
        return 5

    made.__module__ = "__main__"

    assert 5 == travel(made)()


def test_what_does_not_pickle_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="positional argument 1 of type lock"):
        dump(((1, lock), {}))
    with pytest.raises(SerializationError, match="argument 'key' of type list"):
        dump(((), {"key": [lock]}))
    with pytest.raises(SerializationError, match="type lock"):
        dump(lock, "pickle")
    with pytest.raises(SerializationError, match="as msgpack"):
        dump({"x": object()}, "msgpack")


def test_what_does_not_load_is_an_error() -> None:
    with pytest.raises(SerializationError, match="cannot be rebuilt"):
        load(b"no pickle")


@pytest.mark.parametrize("portable", [False, True])
def test_a_segment_is_private_to_its_reader(portable: bool) -> None:
    segment = Segment([memoryview(b"abc"), memoryview(b""), memoryview(b"de")], portable=portable)

    one, two = (open_segment(segment.path, segment.identity) for _ in range(2))
    one[0:1] = b"X"

    assert (b"Xbcde", b"abcde") == (bytes(one), bytes(two))
    path = segment.path
    segment.close()
    segment.close()
    assert not Path(path).exists()
    assert b"abcde" == bytes(two)


def test_a_closed_segment_is_not_another_one() -> None:
    first = Segment([memoryview(b"first")])
    path, identity = first.path, first.identity
    first.close()
    second = Segment([memoryview(b"other")])

    with pytest.raises(OSError, match=r".+"):
        open_segment(path, identity)
    second.close()
