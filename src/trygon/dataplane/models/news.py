"""What a replica tells its callers of its models: a frame of kind MODELS, and what a caller makes of it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from enum import IntEnum

import msgspec

__all__ = ["COMPLETE", "MAX_ID_LENGTH", "MAX_TOLD", "ModelState", "decode_into", "encode_news", "is_told"]

#: Models that a replica tells of; callers find those past it by the hash alone.
MAX_TOLD = 10_000
#: Longest name that is told of, in characters; names come from outside.
MAX_ID_LENGTH = 256
#: The frame's value when it says everything: what was known before is void.
COMPLETE = 1


class ModelState(IntEnum):
    """How a replica has a model."""

    GONE = 0
    LOADING = 1  #: being loaded, or waiting for its turn
    LOADED = 2


class _News(msgspec.Struct, array_like=True, frozen=True):
    loaded: list[str]
    loading: list[str]
    gone: list[str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_News).decode


def is_told(model_id: str) -> bool:
    """Whether callers may hear of `model_id`: a long name, or half a character, is not sent."""
    return len(model_id) <= MAX_ID_LENGTH and model_id.isprintable()


def encode_news(states: Mapping[str, ModelState]) -> bytes:
    """Return the body of a frame that tells `states`."""
    by_state: dict[ModelState, list[str]] = {state: [] for state in ModelState}
    for model_id, state in states.items():
        by_state[state].append(model_id)
    return _encode(
        _News(by_state[ModelState.LOADED], by_state[ModelState.LOADING], by_state[ModelState.GONE])
    )


def decode_into(states: MutableMapping[str, ModelState], body: bytes) -> None:
    """Change what is known of a replica by what it told.

    Raises:
        msgspec.ValidationError: The body is not ours.
    """
    news = _decode(body)
    for model_id in news.gone:
        states.pop(model_id, None)
    for model_id in news.loading:
        states[model_id] = ModelState.LOADING
    for model_id in news.loaded:
        states[model_id] = ModelState.LOADED
