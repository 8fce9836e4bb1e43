"""Frames: the units that the transport carries between our own processes.

Pure: bytes in, values out. A frame is a 20-byte little-endian header and a payload of
``length`` bytes, the first ``head_length`` of which are the head (request meta, response
headers) and the rest the body.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from trygon.errors import TrygonError

__all__ = [
    "HEADER",
    "HEADER_SIZE",
    "MAX_FRAME_BYTES",
    "FrameError",
    "FrameFlag",
    "FrameKind",
    "encode",
]

#: length u32, stream u32, kind u8, flags u8, status u16, head_length u32, value u32
HEADER = struct.Struct("<IIBBHII")
HEADER_SIZE = HEADER.size

#: No sender of ours makes a larger frame: bodies are cut, large objects go through shared memory.
MAX_FRAME_BYTES = 64 * 1024 * 1024

_pack = HEADER.pack


class FrameKind(IntEnum):
    """What a frame means; `docs/architecture.md` has the table."""

    # caller to callee
    HTTP = 1  #: a request from outside; head is an HttpMeta
    CALL = 2  #: a handle call; head is a CallMeta
    # both ways
    DATA = 3  #: more of a body, a stream item, a websocket message
    CREDIT = 4  #: the receiver took `value` bytes, send on
    # caller to callee
    CANCEL = 5  #: nobody waits for this stream any more
    PING = 6  #: answer with PONG at once, with the same `value`
    # callee to caller
    PONG = 7
    RESPONSE = 8  #: status and head (header lines), first part of the body; `value` is the replica's load
    RESULT = 9  #: what a handle call returned, pickled; `value` is the replica's load
    ERROR = 10  #: user code raised, or the request cannot be taken; `status` is an ErrorKind
    REJECT = 11  #: the replica is full or draining: try another; `value` is its load
    # caller to callee: tell me of your models; callee to caller: the models it has, all or what changed
    MODELS = 12


class FrameFlag(IntEnum):
    """Bits of the `flags` field."""

    NONE = 0
    MORE = 1  #: the message goes on in DATA frames
    TEXT = 2  #: a websocket text message
    CLOSE = 4  #: a websocket close: u16 code, then the reason
    LENGTH = 8  #: the response's head has a content-length line
    EXTERNAL = 16  #: the payload's buffers are in shared memory
    STREAM = 32  #: the caller wants a stream of items
    UPGRADE = 64  #: the response accepts a websocket
    FREED = 128  #: the replica's slot is free again though bytes are still to come


class FrameError(TrygonError):
    """The bytes are not frames of ours; the connection cannot be used any more."""


def encode(  # noqa: PLR0913 - a frame's fields
    kind: int,
    stream: int,
    head: bytes = b"",
    body: bytes = b"",
    *,
    flags: int = 0,
    status: int = 0,
    value: int = 0,
) -> bytes:
    """Return one frame."""
    head_length = len(head)
    return _pack(head_length + len(body), stream, kind, flags, status, head_length, value) + head + body
