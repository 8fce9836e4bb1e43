"""The websocket framing (RFC 6455), server side: bytes in, events out; no extensions.

Pure (sans I/O). A client's frames must be masked, use no reserved bit or opcode, fragment only data, and
keep control frames at 125 bytes; text must be UTF-8. The first violation ends the reader.
"""

from __future__ import annotations

import codecs
from base64 import b64encode
from enum import IntEnum
from hashlib import sha1
from typing import Final, NamedTuple

__all__ = [
    "CloseCode",
    "Event",
    "EventKind",
    "MessageReader",
    "Opcode",
    "accept_key",
    "close_frame",
    "encode_frame",
    "frame_header",
    "is_sendable_code",
    "unmask",
]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Events returned by one call, so that a flood of tiny frames cannot hold up the loop (about 2 us each).
_MAX_EVENTS: Final = 256

_incremental_utf8 = codecs.getincrementaldecoder("utf-8")


class Opcode(IntEnum):
    """RFC 6455, 5.2."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """RFC 6455, 7.4.1, and the registry."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005  #: never on the wire
    ABNORMAL = 1006  #: never on the wire
    INVALID_DATA = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012


class EventKind(IntEnum):
    """What a client did."""

    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10
    FAILED = 11  #: it broke the protocol: close with `code`


class Event(NamedTuple):
    """One message or control frame; `data` is the reason of a CLOSE or FAILED."""

    kind: int
    data: bytes
    code: int = 0


#: As plain globals: reading a member from its class costs 0.1 us in Python 3.11, for each frame.
_TEXT: Final = 1
_CLOSE: Final = 8


def accept_key(key: bytes) -> bytes:
    """Return Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def unmask(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """Return `data` xored with the repeated four-byte `key`; as one large integer, 1 GB/s."""
    size = len(data)
    mask = (key * ((size >> 2) + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")


def encode_frame(opcode: int, data: bytes) -> bytes:
    """Return the header of a whole, unmasked message or control frame, with its data unless that is large."""
    return frame_header(opcode, len(data)) + data


def frame_header(opcode: int, size: int) -> bytes:
    """Return the header of a final, unmasked frame."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """Return a close frame; codes that never travel become an empty one."""
    if not is_sendable_code(code):
        return encode_frame(Opcode.CLOSE, b"")
    if len(reason) > 123:
        reason = reason[:123].decode("utf-8", "ignore").encode()
    return encode_frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason)


def is_sendable_code(code: int) -> bool:
    """Tell whether a close frame may carry this code."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


class MessageReader:
    """Messages and control frames out of a client's bytes.

    Attributes:
        is_ended: After a CLOSE or FAILED event; what follows is ignored.
        has_more: The last call stopped at its bound on events: call `receive(b"")` soon.
    """

    __slots__ = ("_buffer", "_decoder", "_max_bytes", "_opcode", "_parts", "_pos", "has_more", "is_ended")

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes
        self._buffer = bytearray()
        self._pos = 0
        #: Of the message whose fragments arrive; 0 is none.
        self._opcode = 0
        self._parts = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = None
        self.is_ended = False
        self.has_more = False

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the client and return what they complete, in order."""
        events: list[Event] = []
        if self.is_ended:
            return events
        self._buffer += data
        self.has_more = False
        while not self.is_ended:
            if len(events) == _MAX_EVENTS:
                self.has_more = True
                break
            if not self._read_frame(events):
                break
        if self.is_ended:
            self._buffer.clear()
            self._parts.clear()
        else:
            del self._buffer[: self._pos]
        self._pos = 0
        return events

    def hold(self, data: bytes) -> None:
        """Take bytes without looking at them; a later `receive` will."""
        if not self.is_ended:
            self._buffer += data
            self.has_more = True

    def _fail(self, events: list[Event], code: int, reason: bytes) -> bool:
        self.is_ended = True
        events.append(Event(EventKind.FAILED, reason, code))
        return False

    def _read_frame(self, events: list[Event]) -> bool:
        """Read one whole frame; return False when there is none, or no more may be read."""
        buffer = self._buffer
        pos = self._pos
        available = len(buffer) - pos
        if available < 2:
            return False
        first = buffer[pos]
        opcode = first & 0x0F
        size = buffer[pos + 1] & 0x7F
        problem = self._check_start(first, buffer[pos + 1])
        start = pos + 2
        if not problem and size >= 126:
            width = 2 if size == 126 else 8
            if available < 2 + width:
                return False
            size = int.from_bytes(buffer[start : start + width], "big")
            start += width
            if size < (126 if width == 2 else 65536) or size >> 63:
                problem = b"length not in its shortest form"
        if problem:
            return self._fail(events, CloseCode.PROTOCOL_ERROR, problem)
        if size + len(self._parts) > self._max_bytes and opcode < 8:
            return self._fail(events, CloseCode.TOO_BIG, b"message too big")
        end = start + 4 + size
        if len(buffer) < end:
            return False
        payload = unmask(buffer[start + 4 : end], bytes(buffer[start : start + 4])) if size else b""
        self._pos = end
        if opcode >= 8:
            return self._take_control(events, opcode, payload)
        return self._take_data(events, opcode, payload, is_final=bool(first & 0x80))

    def _check_start(self, first: int, second: int) -> bytes:
        """Return what is wrong with the first two bytes of a frame, or b""."""
        opcode = first & 0x0F
        problem = b""
        if first & 0x70:
            problem = b"reserved bit set"
        elif not second & 0x80:
            problem = b"frame not masked"
        elif opcode > 10 or 2 < opcode < 8:
            problem = b"reserved opcode"
        elif opcode >= 8:
            if not first & 0x80:
                problem = b"fragmented control frame"
            elif second & 0x7F > 125:
                problem = b"control frame too long"
        elif opcode == 0 and not self._opcode:
            problem = b"continuation of nothing"
        elif opcode and self._opcode:
            problem = b"new message inside a fragmented one"
        return problem

    def _take_data(self, events: list[Event], opcode: int, payload: bytes, *, is_final: bool) -> bool:
        if is_final and opcode:
            if opcode == _TEXT and not payload.isascii():
                try:
                    payload.decode("utf-8")
                except UnicodeDecodeError:
                    return self._fail(events, CloseCode.INVALID_DATA, b"text is not UTF-8")
            events.append(Event(opcode, payload))
            return True
        if opcode:
            self._opcode = opcode
            self._decoder = _incremental_utf8() if opcode == _TEXT else None
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, is_final)
            except UnicodeDecodeError:
                return self._fail(events, CloseCode.INVALID_DATA, b"text is not UTF-8")
        self._parts += payload
        if is_final:
            events.append(Event(self._opcode, bytes(self._parts)))
            self._parts = bytearray()
            self._opcode = 0
            self._decoder = None
        return True

    def _take_control(self, events: list[Event], opcode: int, payload: bytes) -> bool:
        if opcode != _CLOSE:
            events.append(Event(opcode, payload))
            return True
        if not payload:
            events.append(Event(EventKind.CLOSE, b"", CloseCode.NO_STATUS))
        else:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) < 2 or not is_sendable_code(code):
                return self._fail(events, CloseCode.PROTOCOL_ERROR, b"invalid close code")
            try:
                payload[2:].decode("utf-8")
            except UnicodeDecodeError:
                return self._fail(events, CloseCode.INVALID_DATA, b"close reason is not UTF-8")
            events.append(Event(EventKind.CLOSE, payload[2:], code))
        self.is_ended = True
        return False
