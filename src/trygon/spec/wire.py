"""Framing of every control message: a 4-byte little-endian length, then one msgpack value.

Pure: bytes in, values out. The request path has frames of its own.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

__all__ = ["MAX_MESSAGE_BYTES", "MessageReader", "pack"]

#: A deployment's pickled definition may hold a model; more than this is a broken peer.
MAX_MESSAGE_BYTES = 1 << 30

_T = TypeVar("_T")
_ENCODER = msgspec.msgpack.Encoder()


def pack(message: Any) -> bytes:
    """Return `message` as one length-prefixed record."""
    body = _ENCODER.encode(message)
    return len(body).to_bytes(4, "little") + body


class MessageReader(Generic[_T]):
    """Cuts a byte stream into messages of one type.

    Args:
        message_type: A type that msgspec can decode, for example a tagged union.
    """

    def __init__(self, message_type: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[_T] = msgspec.msgpack.Decoder(message_type)
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[_T]:
        """Take the next bytes of the stream; return the messages that are now complete.

        Raises:
            ValueError: The stream is not ours: an absurd length or a value of another shape.
        """
        buffer = self._buffer
        buffer += data
        messages: list[_T] = []
        start = 0
        while len(buffer) - start >= 4:
            size = int.from_bytes(buffer[start : start + 4], "little")
            if size > MAX_MESSAGE_BYTES:
                raise ValueError(f"control message of {size} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
            end = start + 4 + size
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                messages.append(self._decoder.decode(view[start + 4 : end]))
            start = end
        if start:
            del buffer[:start]
        return messages
