"""The framing of control messages survives any cutting of the stream."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.spec.control import Call, FromPeer, GetStatus, Hello, TableApplied
from trygon.spec.wire import MAX_MESSAGE_BYTES, MessageReader, pack

MESSAGES = [
    Hello(role="client", pid=7),
    TableApplied(version=2**40),
    Call(seq=1, request=GetStatus()),
    Hello(role="replica", peer_id="app#Main#" + "x" * 5000),
]


@given(st.lists(st.integers(1, 200), max_size=60))
def test_any_cutting_gives_the_same_messages(cuts: list[int]) -> None:
    stream = b"".join(pack(message) for message in MESSAGES)
    reader: MessageReader[FromPeer] = MessageReader(FromPeer)
    got: list[FromPeer] = []
    for cut in cuts:
        got += reader.feed(stream[:cut])
        stream = stream[cut:]

    got += reader.feed(stream)

    assert MESSAGES == got


def test_absurd_length_is_refused_before_it_is_waited_for() -> None:
    reader: MessageReader[FromPeer] = MessageReader(FromPeer)

    with pytest.raises(ValueError, match="at most"):
        reader.feed((MAX_MESSAGE_BYTES + 1).to_bytes(4, "little"))


def test_another_shape_is_refused() -> None:
    reader: MessageReader[FromPeer] = MessageReader(FromPeer)

    with pytest.raises(msgspec.DecodeError):
        reader.feed(pack({"type": "Nonsense"}))
