"""What user code returned, as an HTTP answer: the conversions of Ray Serve.

str is text, bytes are sent as they are, None is empty, everything else is compact JSON
(numpy, pandas, pydantic and dataclasses included). A Starlette Response is not converted here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = ["HeaderError", "convert", "header_block"]

_TEXT = b"content-type: text/plain; charset=utf-8\r\n"
_BYTES = b"content-type: text/plain\r\n"
_JSON = b"content-type: application/json\r\n"

#: Owned by the connection (RFC 9110 section 7.6.1), or written by the ingress.
_NOT_FORWARDED = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"te",
        b"trailer",
        b"date",
        b"x-request-id",
    )
)
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: Header names that were found valid; user code uses few different ones.
_known_names: dict[bytes, bytes | None] = dict.fromkeys(_NOT_FORWARDED)
_MAX_KNOWN_NAMES = 1024


class HeaderError(ValueError):
    """User code set a header that must not leave: a bad name, or CR, LF or NUL in the value."""


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bool]:
    """Return the header lines to send, and whether content-length is among them.

    Raises:
        HeaderError: A name is no token, or a value holds CR, LF or NUL (response splitting).
    """
    parts: list[bytes] = []
    has_length = False
    count = 0
    for name, value in headers:
        try:
            known = _known_names[name]
        except KeyError:
            known = _learn(name)
        if known is None:
            continue
        if known == b"content-length":
            has_length = True
        parts += (known, b": ", value, b"\r\n")
        count += 1
    block = b"".join(parts)
    if block.count(b"\r") != count or block.count(b"\n") != count or b"\0" in block:
        raise HeaderError("a response header holds CR, LF or NUL; remove them from the value")
    return block, has_length


def _learn(name: bytes) -> bytes | None:
    lower = bytes(name).lower()
    if lower in _NOT_FORWARDED:
        return None
    if _TOKEN.fullmatch(lower) is None:
        raise HeaderError(f"{name!r} is no valid header name; use letters, digits and hyphens")
    if len(_known_names) < _MAX_KNOWN_NAMES:
        _known_names[bytes(name)] = lower
    return lower


def convert(value: Any) -> tuple[bytes, bytes]:
    """Return the header lines and the body for what user code returned.

    Raises:
        TypeError: A value that has no JSON form.
    """
    kind = type(value)
    if kind is dict or kind is list:
        return _JSON, _encode_json(value)
    if kind is str:
        return _TEXT, value.encode()
    if value is None:
        return _BYTES, b""
    if isinstance(value, bytes):
        return _BYTES, value
    if isinstance(value, str):
        return _TEXT, str.encode(value)
    return _JSON, _encode_json(value)


def _fallback(value: Any) -> Any:
    """Return a value with a JSON form for an object that msgspec does not know."""
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    if module == "numpy":
        # Arrays become nested lists, scalars plain numbers.
        return value.tolist()
    if module == "pandas":
        return value.to_dict(orient="records") if kind.__name__ == "DataFrame" else value.to_list()
    if isinstance(value, BaseException):
        return str(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    if hasattr(value, "__iter__"):
        return list(value)
    if hasattr(value, "__dict__"):
        return vars(value)
    raise TypeError(
        f"cannot turn a {kind.__qualname__} into JSON; return plain data, a numpy array, a pandas frame, "
        "a pydantic model or a Starlette Response"
    )


_encode_json = msgspec.json.Encoder(enc_hook=_fallback).encode
