"""The websocket codec against RFC 6455, frame by frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.protocols.http.websocket import (
    CloseCode,
    Event,
    EventKind,
    MessageReader,
    Opcode,
    accept_key,
    close_frame,
    encode_frame,
    unmask,
)

LIMIT = 100_000
KEY = b"\x01\x02\x03\x04"


def frame(
    opcode: int,
    data: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    width: int | None = None,
) -> bytes:
    """Return a client's frame, however wrong; `width` forces the length's form (0, 2 or 8 bytes)."""
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    size = len(data)
    if width is None:
        width = 0 if size < 126 else 2 if size < 65536 else 8
    mask = 0x80 if masked else 0
    length = (
        bytes([mask | size])
        if not width
        else bytes([mask | (126 if width == 2 else 127)]) + size.to_bytes(width)
    )
    return first + length + (KEY + unmask(data, KEY) if masked else data)


def read(*parts: bytes, limit: int = LIMIT) -> list[Event]:
    reader = MessageReader(limit)
    events: list[Event] = []
    for part in parts:
        events += reader.receive(part)
        while reader.has_more:
            events += reader.receive(b"")
    return events


def text(data: str | bytes) -> Event:
    return Event(EventKind.TEXT, data.encode() if isinstance(data, str) else data)


def codes(events: list[Event]) -> list[int]:
    return [event.code for event in events if event.kind == EventKind.FAILED]


def test_accept_key_of_the_rfc() -> None:
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == accept_key(b"dGhlIHNhbXBsZSBub25jZQ==")


def test_masked_hello_of_the_rfc() -> None:
    assert [text("Hello")] == read(bytes.fromhex("818537fa213d7f9f4d5158"))


def test_fragmented_hello() -> None:
    assert [text("Hello")] == read(frame(1, b"Hel", fin=False) + frame(0, b"lo"))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536, 65537])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_message_of_any_size(size: int, opcode: int) -> None:
    data = b"*" * size

    assert [Event(opcode, data)] == read(frame(opcode, data))


@pytest.mark.parametrize("size", [0, 1, 125])
def test_ping_is_heard_with_its_data(size: int) -> None:
    assert [Event(EventKind.PING, b"p" * size)] == read(frame(9, b"p" * size))


def test_unsolicited_pong_is_heard() -> None:
    assert [Event(EventKind.PONG, b"x")] == read(frame(10, b"x"))


def test_control_frame_between_fragments() -> None:
    events = read(
        frame(1, b"a", fin=False), frame(9, b"p"), frame(0, b"b", fin=False), frame(10), frame(0, b"c")
    )

    assert [Event(EventKind.PING, b"p"), Event(EventKind.PONG, b""), text("abc")] == events


def test_empty_fragments() -> None:
    assert [text("")] == read(frame(1, fin=False), frame(0, fin=False), frame(0))


def test_binary_fragments_are_not_decoded() -> None:
    assert [Event(EventKind.BINARY, b"\xff\xfe")] == read(frame(2, b"\xff", fin=False), frame(0, b"\xfe"))


def test_code_point_split_over_fragments() -> None:
    raw = "\u20ac\U0001f600".encode()
    parts = [frame(1, raw[:1], fin=False)]
    parts += [frame(0, raw[n : n + 1], fin=False) for n in range(1, len(raw))]

    assert [text(raw)] == read(*parts, frame(0))


@pytest.mark.parametrize(
    "raw",
    [
        frame(1, b"a", rsv=1),
        frame(1, b"a", rsv=2),
        frame(2, b"a", rsv=4),
        frame(9, b"a", rsv=1),
        frame(3, b"a"),
        frame(4),
        frame(5),
        frame(6, b"a"),
        frame(7),
        frame(11),
        frame(12, b"a"),
        frame(13),
        frame(14),
        frame(15, b"a"),
        frame(1, b"a", masked=False),
        frame(9, b"a", masked=False),
        frame(8, b"\x03\xe8", masked=False),
        frame(0, b"a"),
        frame(0, b"a", fin=False),
        frame(1, b"a", fin=False) + frame(1, b"b"),
        frame(1, b"a", fin=False) + frame(2, b"b"),
        frame(1, b"a") + frame(0, b"b"),
        frame(9, b"a", fin=False),
        frame(10, b"a", fin=False),
        frame(8, b"\x03\xe8", fin=False),
        frame(9, b"a" * 126),
        frame(10, b"a" * 126),
        frame(8, b"\x03\xe8" + b"a" * 124),
        frame(1, b"a", width=2),
        frame(1, b"a" * 125, width=2),
        frame(1, b"a", width=8),
        frame(1, b"a" * 126, width=8),
        frame(1, b"a" * 65535, width=8),
        b"\x81\xff" + b"\x80" + bytes(7) + KEY,
        frame(8, b"\x03"),
    ],
    ids=lambda raw: raw[:12].hex(),
)
def test_protocol_error(raw: bytes) -> None:
    events = read(raw + frame(1, b"after"))

    assert [CloseCode.PROTOCOL_ERROR] == codes(events)
    assert text("after") not in events


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_code_that_may_not_be_sent(code: int) -> None:
    assert [CloseCode.PROTOCOL_ERROR] == codes(read(frame(8, code.to_bytes(2))))


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 3999, 4000, 4999]
)
def test_close_code_that_may_be_sent(code: int) -> None:
    assert [Event(EventKind.CLOSE, b"why", code)] == read(frame(8, code.to_bytes(2) + b"why"))


def test_close_without_code() -> None:
    assert [Event(EventKind.CLOSE, b"", CloseCode.NO_STATUS)] == read(frame(8))


def test_nothing_is_heard_after_a_close() -> None:
    assert [Event(EventKind.CLOSE, b"", 1000)] == read(
        frame(8, b"\x03\xe8") + frame(1, b"late"), frame(1, b"later")
    )


def test_close_reason_must_be_utf8() -> None:
    assert [CloseCode.INVALID_DATA] == codes(read(frame(8, b"\x03\xe8\xff")))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",
        b"\xbf",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xc3",
        b"\xc3(",
        b"\xe0\x80\xaf",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\xaf",
        b"\xf0\x9f\x98",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"ok \xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ],
    ids=lambda data: data.hex(),
)
def test_text_that_is_not_utf8(data: bytes) -> None:
    assert [CloseCode.INVALID_DATA] == codes(read(frame(1, data)))
    assert [CloseCode.INVALID_DATA] == codes(read(frame(1, data[:1], fin=False), frame(0, data[1:])))
    assert [] == codes(read(frame(2, data)))


def test_bad_text_fails_at_its_fragment_not_at_the_end() -> None:
    assert [CloseCode.INVALID_DATA] == codes(read(frame(1, b"\xff", fin=False)))


@pytest.mark.parametrize(
    "data", ["", "a", "\u00e9", "\u20ac", "\ufffd", "\U0010ffff", "\ud7ff", "\ue000", "\x00"]
)
def test_text_that_is_utf8(data: str) -> None:
    assert [text(data)] == read(frame(1, data.encode()))


def test_message_beyond_the_limit_is_refused_by_its_header() -> None:
    header = frame(2, b"x" * 1001)[:8]

    assert [CloseCode.TOO_BIG] == codes(read(header, limit=1000))
    assert [Event(EventKind.BINARY, b"x" * 1000)] == read(frame(2, b"x" * 1000), limit=1000)


def test_fragments_beyond_the_limit_are_refused() -> None:
    events = read(frame(2, b"x" * 600, fin=False), frame(0, b"x" * 401), limit=1000)

    assert [CloseCode.TOO_BIG] == codes(events)


def test_control_frames_do_not_count_to_the_limit() -> None:
    events = read(frame(2, b"x" * 999, fin=False), frame(9, b"p" * 100), frame(0, b"x"), limit=1000)

    assert [] == codes(events)


def test_messages_before_a_violation_are_heard() -> None:
    events = read(frame(1, b"first") + frame(1, b"second", masked=False))

    assert text("first") == events[0]
    assert [CloseCode.PROTOCOL_ERROR] == codes(events)


def test_flood_of_tiny_frames_is_read_in_turns() -> None:
    reader = MessageReader(LIMIT)

    first = reader.receive(frame(1, b"x") * 600)
    second = reader.receive(b"")
    third = reader.receive(b"")

    assert [256, 256, 88] == [len(first), len(second), len(third)]
    assert not reader.has_more


def test_held_bytes_are_read_later() -> None:
    reader = MessageReader(LIMIT)
    reader.hold(frame(1, b"early"))

    assert reader.has_more
    assert [text("early")] == reader.receive(b"")


@given(st.data())
def test_any_cut_gives_the_same(data: st.DataObject) -> None:
    frames = st.one_of(
        st.text(max_size=10).map(lambda value: frame(1, value.encode())),
        st.binary(max_size=200).map(lambda value: frame(2, value)),
        st.binary(max_size=20).map(lambda value: frame(9, value)),
        st.binary(max_size=10).map(lambda value: frame(2, value, fin=False) + frame(0, value)),
        st.binary(max_size=20),
    )
    raw = b"".join(data.draw(st.lists(frames, max_size=6)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    parts = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    assert read(raw) == read(*parts)


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_unmask_is_a_repeated_xor(data: bytes, key: bytes) -> None:
    expected = bytes(byte ^ key[n % 4] for n, byte in enumerate(data))

    assert expected == unmask(data, key)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_server_frames_are_not_masked_and_shortest(size: int) -> None:
    header = {0: b"\x82\x00", 125: b"\x82\x7d", 126: b"\x82\x7e\x00\x7e", 65535: b"\x82\x7e\xff\xff"}

    raw = encode_frame(Opcode.BINARY, b"x" * size)

    assert header.get(size, b"\x82\x7f" + (65536).to_bytes(8)) + b"x" * size == raw


def test_close_frame() -> None:
    assert b"\x88\x05\x03\xe8bye" == close_frame(1000, b"bye")
    assert b"\x88\x00" == close_frame(1005)
    assert b"\x88\x00" == close_frame(1006, b"never sent")


def test_long_close_reason_is_cut_between_characters() -> None:
    raw = close_frame(1000, "\u20ac".encode() * 60)

    assert len(raw) <= 127
    raw[4:].decode("utf-8")
