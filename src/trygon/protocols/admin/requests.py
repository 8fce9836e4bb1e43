"""Small bodies of requests, read and checked. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from trygon.errors import ConfigError
from trygon.spec.validation import near_names

__all__ = ["read_replicas", "read_undo"]

#: More replicas of one deployment than a machine can start; a slip of the finger has more digits.
_MAX_REPLICAS = 10_000


def read_replicas(body: bytes) -> int:
    """Return the number of replicas that an external scaler asks for.

    Raises:
        ConfigError: The body does not say it.
    """
    count = _field(body, "target_num_replicas", wanted='{"target_num_replicas": 3}')
    if not _is_count(count) or count > _MAX_REPLICAS:
        raise ConfigError(
            f"target_num_replicas: wanted a whole number from 0 to {_MAX_REPLICAS}, found {count!r}"
        )
    return int(count)


def read_undo(body: bytes) -> int | None:
    """Return the revision to go back to; None is the last complete one before.

    Raises:
        ConfigError: The body says something else.
    """
    if not body.strip():
        return None
    to = _field(body, "to", wanted='{"to": 3}, or no body')
    if to is not None and not _is_count(to):
        raise ConfigError(f"to: wanted the number of a revision, found {to!r}")
    return None if to is None else int(to)


def _field(body: bytes, name: str, *, wanted: str) -> Any:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError):
        raise ConfigError(f"the body is no JSON; send {wanted}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"wanted an object such as {wanted}, found {value!r}"[:200])
    for key in value:
        if key != name:
            raise ConfigError(f"unknown key {key!r}{near_names(key, [name]) or f'; send {wanted}'}")
    return value.get(name)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
