"""One framed connection between two of our processes: cuts bytes into frames and sends frames."""

from __future__ import annotations

import asyncio
from typing import cast

from trygon.dataplane.frames import HEADER, HEADER_SIZE, MAX_FRAME_BYTES, FrameError

__all__ = ["WRITE_HIGH_WATER_BYTES", "FrameConnection"]

#: Above this many unsent bytes a connection says it is paused; streams then stop, unary frames still go.
WRITE_HIGH_WATER_BYTES = 1024 * 1024

#: Frames that wait for the end of a turn before they leave in the middle of it. The peer then works on them on
#: another processor meanwhile: 1.2 times the throughput of an echo at 64 connections on two processors, in 14
#: seconds of each in turn; 4 and 16 gave the same.
_MAX_GATHERED = 8

_unpack = HEADER.unpack_from


class FrameConnection(asyncio.Protocol):
    """Cuts what arrives into frames and sends what leaves; sub-classes say what a frame means."""

    __slots__ = (
        "_chunks",
        "_have",
        "_is_gathering",
        "_need",
        "_out",
        "_tail",
        "bytes_in",
        "bytes_out",
        "is_paused",
        "loop",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: None before the connection is made and after it is lost.
        self.transport: asyncio.Transport | None = None
        #: Bytes received and sent so far, headers of frames included.
        self.bytes_in = 0
        self.bytes_out = 0
        #: True while the kernel and the transport hold more than WRITE_HIGH_WATER_BYTES for the peer.
        self.is_paused = False
        #: Bytes of an incomplete frame.
        self._tail = b""
        #: Pieces of one large frame, until `_have` reaches `_need`.
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0
        #: True from the first frame of a turn to that turn's `_flush`; then frames wait in `_out`.
        self._is_gathering = False
        self._out: list[bytes] = []

    # ---- what sub-classes do

    def on_frame(  # noqa: PLR0913 - a frame's fields; a value object costs more than the rest
        self, kind: int, stream: int, flags: int, status: int, value: int, head: bytes, body: bytes
    ) -> None:
        """Take one frame."""
        raise NotImplementedError

    def on_lost(self, error: BaseException | None) -> None:
        """Hear once that the connection is gone."""

    def on_resumed(self) -> None:
        """Hear that `is_paused` is False again."""

    # ---- sending

    def send(self, frame: bytes) -> None:
        """Send a frame; dropped when the peer is gone.

        The first frame of a turn of the loop leaves at once, the others of that turn a few in one write:
        a lone request pays no turn of delay (15 us of 200), and a busy connection not a system call a frame.
        """
        if self._is_gathering:
            self._out.append(frame)
            if len(self._out) >= _MAX_GATHERED:
                self._write_out()
        elif self.transport is not None:
            self._is_gathering = True
            self.loop.call_soon(self._flush)
            self.bytes_out += len(frame)
            self.transport.write(frame)

    def _flush(self) -> None:
        self._is_gathering = False
        self._write_out()

    def _write_out(self) -> None:
        out = self._out
        if out:
            if self.transport is not None:
                data = out[0] if len(out) == 1 else b"".join(out)
                self.bytes_out += len(data)
                self.transport.write(data)
            out.clear()

    def close(self) -> None:
        """Send what is queued and close; `on_lost` follows."""
        if self.transport is not None:
            self._flush()
            self.transport.close()

    def abort(self) -> None:
        """Close without sending what is queued; `on_lost` follows."""
        if self.transport is not None:
            self.transport.abort()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._chunks.clear()
        self._tail = b""
        self.on_lost(exc)

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self.on_resumed()

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._need:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._need = 0
        elif self._tail:
            data = self._tail + data
            self._tail = b""
        size = len(data)
        position = 0
        on_frame = self.on_frame
        while size - position >= HEADER_SIZE:
            length, stream, kind, flags, status, head_length, value = _unpack(data, position)
            start = position + HEADER_SIZE
            end = start + length
            if end > size:
                if length > MAX_FRAME_BYTES or head_length > length:
                    self._refuse(length, head_length)
                    return
                # Joining once keeps a large frame linear in its size.
                self._chunks.append(data[position:])
                self._have = size - position
                self._need = HEADER_SIZE + length
                return
            middle = start + head_length
            if middle > end:
                self._refuse(length, head_length)
                return
            on_frame(kind, stream, flags, status, value, data[start:middle], data[middle:end])
            position = end
        if position < size:
            self._tail = data[position:] if position else data

    def _refuse(self, length: int, head_length: int) -> None:
        error = FrameError(f"a peer sent a frame of {length} bytes with a head of {head_length}: not ours")
        transport = self.transport
        if transport is not None:
            transport.abort()
        self.loop.call_exception_handler({"message": str(error), "exception": error, "transport": transport})
