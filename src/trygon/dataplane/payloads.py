"""Values to bytes and back, between our own processes only.

Pickle protocol 5: large buffers (numpy arrays, Arrow tables) stay out of the pickle and are copied once.
Nothing that came from an outside client is ever loaded here.
"""

from __future__ import annotations

import json
import pickle
from typing import Any

import cloudpickle
import msgspec

from trygon.dataplane.segments import Segment, has_room, open_segment
from trygon.errors import SerializationError

__all__ = ["SERIALIZATIONS", "Payload", "PayloadMeta", "dump", "load"]

#: From here on a payload goes through a memory file: below, two copies through the socket cost less
#: than making and mapping one (see docs/benchmarks.md, "payload").
SEGMENT_THRESHOLD_BYTES = 512 * 1024

#: What goes through the socket when too many segments are open; well below the largest frame.
MAX_INLINE_BYTES = 32 * 1024 * 1024

SERIALIZATIONS = ("cloudpickle", "pickle", "msgpack", "orjson", "json")


class PayloadMeta(msgspec.Struct, array_like=True, gc=False):
    """What the receiver needs besides the bytes."""

    #: Sizes of the parts, the pickle first; empty when the body is the pickle alone.
    sizes: tuple[int, ...] = ()
    #: Path of the segment that holds the parts; empty when they are in the body.
    segment: str = ""
    serialization: str = "cloudpickle"
    #: Identity of the segment, since its path may be used again.
    segment_id: int = 0

    @property
    def nbytes(self) -> int:
        """Size of all parts."""
        return sum(self.sizes)


class Payload:
    """A value made ready to travel; `segment` must be closed when the receiver has it."""

    __slots__ = ("body", "meta", "segment")

    def __init__(self, body: bytes, meta: PayloadMeta | None = None, segment: Segment | None = None) -> None:
        self.body = body
        #: None for the common case: a small pickle.
        self.meta = meta
        self.segment = segment

    @property
    def nbytes(self) -> int:
        """Size of the value, wherever its bytes are."""
        return len(self.body) if self.segment is None else self.meta.nbytes if self.meta is not None else 0

    def close(self) -> None:
        """Free the segment, if there is one."""
        if self.segment is not None:
            self.segment.close()


def dump(value: Any, serialization: str = "cloudpickle") -> Payload:
    """Make `value` ready to travel.

    Raises:
        SerializationError: It cannot be pickled; names the type and the remedy.
    """
    if serialization in ("cloudpickle", "pickle"):
        buffers: list[pickle.PickleBuffer] = []
        body = _pickle(value, buffers, by_value=serialization == "cloudpickle")
    else:
        body = _dump_other(value, serialization)
        buffers = []
    if not buffers and len(body) < SEGMENT_THRESHOLD_BYTES:
        if serialization in ("cloudpickle", "pickle"):
            return Payload(body)
        return Payload(body, PayloadMeta(serialization=serialization))
    parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    sizes = tuple(part.nbytes for part in parts)
    if sum(sizes) < (SEGMENT_THRESHOLD_BYTES if has_room() else MAX_INLINE_BYTES):
        return Payload(b"".join(parts), PayloadMeta(sizes, "", serialization))
    try:
        if not has_room():
            raise OSError("too many large messages are waiting already")
        segment = Segment(parts)
    except OSError as error:
        raise SerializationError(
            f"cannot send {sum(sizes)} bytes to another process: {error}; free memory or descriptors, or send less"
        ) from error
    return Payload(b"", PayloadMeta(sizes, segment.path, serialization, segment.identity), segment)


def load(body: bytes, meta: PayloadMeta | None = None) -> Any:
    """Return the value that `dump` took.

    Raises:
        SerializationError: The value cannot be rebuilt here, for example for want of a module.
    """
    try:
        if meta is None:
            return pickle.loads(body)
        if not meta.sizes:
            return _load_other(body, meta.serialization)
        data = open_segment(meta.segment, meta.segment_id) if meta.segment else memoryview(bytearray(body))
        parts, start = [], 0
        for size in meta.sizes:
            parts.append(data[start : start + size])
            start += size
        if meta.serialization not in ("cloudpickle", "pickle"):
            return _load_other(parts[0], meta.serialization)
        return pickle.loads(parts[0], buffers=parts[1:])
    except BaseException as error:
        raise SerializationError(
            f"a value from another process cannot be rebuilt here: {type(error).__name__}: {error}; "
            f"the module that defines it must be importable in every process"
        ) from error


def _pickle(value: Any, buffers: list[pickle.PickleBuffer], *, by_value: bool) -> bytes:
    try:
        # The C pickler is ten times faster than cloudpickle's and right for everything importable.
        body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        if not by_value or b"__main__" not in body:
            return body
    except Exception as error:
        if not by_value or isinstance(error, SerializationError):
            raise SerializationError(_explain(value, error)) from error
    buffers.clear()
    try:
        dumped: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except Exception as error:
        raise SerializationError(_explain(value, error)) from error
    return dumped


def _explain(value: Any, error: Exception) -> str:
    return (
        f"cannot send {_describe(value)} to another process: {type(error).__name__}: {error}; "
        f"send plain data (numbers, strings, lists, dicts, arrays), or make the object picklable"
    )


def _describe(value: Any) -> str:
    """Name the part of (args, kwargs) that does not pickle, if one stands out."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
        args, kwargs = value
        for name, item in [*enumerate(args), *kwargs.items()]:
            try:
                cloudpickle.dumps(item)
            except Exception:  # noqa: BLE001 - looking for the one that fails
                which = f"argument {name!r}" if isinstance(name, str) else f"positional argument {name}"
                return f"{which} of type {type(item).__name__}"
    return f"a value of type {type(value).__name__}"


def _dump_other(value: Any, serialization: str) -> bytes:
    try:
        if serialization == "msgpack":
            return msgspec.msgpack.encode(value)
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise SerializationError(
            f"cannot encode a value of type {type(value).__name__} as {serialization}: {error}; "
            f"use the default serialization or send plain data"
        ) from error


def _load_other(body: bytes | memoryview, serialization: str) -> Any:
    if serialization == "msgpack":
        return msgspec.msgpack.decode(body)
    if serialization in ("orjson", "json"):
        return json.loads(bytes(body))
    return pickle.loads(body)
