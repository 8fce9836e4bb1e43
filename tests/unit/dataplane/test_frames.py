"""Frames survive any cutting of the byte stream; what is no frame ends the connection."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trygon.dataplane.frames import HEADER, MAX_FRAME_BYTES, FrameKind, encode
from trygon.dataplane.transport import FrameConnection

frame = st.tuples(
    st.sampled_from(list(FrameKind)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 255),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=40),
    st.binary(max_size=60),
)


class Recorder(FrameConnection):
    """Keeps the frames that arrive."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.frames: list[tuple[Any, ...]] = []

    def on_frame(self, *fields: Any) -> None:
        self.frames.append(fields)


class Wire:
    """Stands for the transport: notes what is written and whether it was aborted."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.is_aborted = True

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0


@pytest.fixture(scope="module")
def loop() -> Any:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    yield loop
    loop.close()


@settings(max_examples=200)
@given(frames=st.lists(frame, max_size=8), cuts=st.lists(st.integers(0, 1200), max_size=12))
def test_frames_survive_any_cutting(loop: Any, frames: list[Any], cuts: list[int]) -> None:
    data = b"".join(
        encode(kind, stream, head, body, flags=flags, status=status, value=value)
        for kind, stream, flags, status, value, head, body in frames
    )
    recorder = Recorder(loop)

    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in itertools.pairwise(edges):
        recorder.data_received(data[start:end])

    assert [tuple(one) for one in frames] == recorder.frames


def test_one_byte_at_a_time(loop: Any) -> None:
    recorder = Recorder(loop)
    for byte in encode(FrameKind.CALL, 7, b"head", b"body" * 100, value=3) * 2:
        recorder.data_received(bytes([byte]))

    assert [(FrameKind.CALL, 7, 0, 0, 3, b"head", b"body" * 100)] * 2 == recorder.frames


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(MAX_FRAME_BYTES + 1, 1, 2, 0, 0, 0, 0),
        HEADER.pack(2**32 - 1, 1, 2, 0, 0, 0, 0),
        HEADER.pack(10, 1, 2, 0, 0, 11, 0) + b"0123456789",
        HEADER.pack(10, 1, 2, 0, 0, 2**32 - 1, 0),
    ],
)
def test_what_is_no_frame_of_ours_ends_the_connection(loop: Any, header: bytes) -> None:
    recorder, wire = Recorder(loop), Wire()
    recorder.connection_made(wire)  # type: ignore[arg-type]

    recorder.data_received(encode(FrameKind.PING, 0) + header)

    assert [FrameKind.PING] == [one[0] for one in recorder.frames]
    assert wire.is_aborted


def test_frames_of_one_turn_leave_in_few_writes_some_before_its_end_and_in_order(loop: Any) -> None:
    recorder, wire = Recorder(loop), Wire()
    recorder.connection_made(wire)  # type: ignore[arg-type]
    frames = [encode(FrameKind.DATA, number) for number in range(100)]
    num_before_its_end = 0

    async def send() -> None:
        nonlocal num_before_its_end
        for one in frames:
            recorder.send(one)
        num_before_its_end = len(wire.written)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(send())

    assert b"".join(frames) == b"".join(wire.written)
    assert 2 < num_before_its_end <= len(wire.written) < 20


def test_frames_for_a_lost_peer_are_dropped(loop: Any) -> None:
    recorder, wire = Recorder(loop), Wire()
    recorder.connection_made(wire)  # type: ignore[arg-type]
    recorder.connection_lost(None)

    async def send() -> None:
        recorder.send(encode(FrameKind.DATA, 1))
        await asyncio.sleep(0)

    loop.run_until_complete(send())

    assert [] == wire.written
    recorder.close()
    recorder.abort()
