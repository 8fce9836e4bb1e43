"""The models of one replica, over all its caches, and the callers that are told of them."""

from __future__ import annotations

import asyncio
from typing import Protocol

from trygon.dataplane.frames import FrameKind, encode
from trygon.dataplane.models.cache import ModelCache
from trygon.dataplane.models.news import COMPLETE, MAX_TOLD, ModelState, encode_news, is_told

__all__ = ["Listener", "ModelBoard"]


class Listener(Protocol):
    """A caller's connection."""

    is_paused: bool

    def send(self, frame: bytes) -> None:
        """Send a frame."""


class ModelBoard:
    """Tells every caller that asked which models there are, then each change, all of a turn of the loop in one frame.

    Nobody is told who did not ask: a caller asks with its first request that names a model. One that does not read
    gets nothing more until it does, and then the whole state, so that no news pile up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        #: The caches of this replica.
        self.caches: list[ModelCache] = []
        #: What callers know, or will know at the end of this turn.
        self._told: dict[str, ModelState] = {}
        self._changed: dict[str, ModelState] = {}
        self._listeners: dict[Listener, None] = {}
        #: Those of them that did not read, and get the whole state when they do.
        self._behind: set[Listener] = set()

    def add(self, cache: ModelCache) -> None:
        """Tell of the models of `cache` too."""
        self.caches.append(cache)
        cache.on_change = self._note

    async def close(self) -> None:
        """Close every cache."""
        for cache in self.caches:
            await cache.close()

    # ---- callers

    def subscribe(self, listener: Listener) -> None:
        """Tell `listener` what there is, and from now on what changes."""
        self._listeners[listener] = None
        self._tell_all(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Forget a caller that is gone."""
        self._listeners.pop(listener, None)
        self._behind.discard(listener)

    def catch_up(self, listener: Listener) -> None:
        """Tell a caller that reads again what it missed."""
        if listener in self._behind:
            self._behind.remove(listener)
            self._tell_all(listener)

    def _tell_all(self, listener: Listener) -> None:
        listener.send(encode(FrameKind.MODELS, 0, body=encode_news(self._told), value=COMPLETE))

    # ---- changes

    def _note(self, model_id: str) -> None:
        state = max((cache.state_of(model_id) for cache in self.caches), default=ModelState.GONE)
        if state is self._told.get(model_id, ModelState.GONE):
            return
        if state is ModelState.GONE:
            del self._told[model_id]
        elif model_id in self._told or (len(self._told) < MAX_TOLD and is_told(model_id)):
            self._told[model_id] = state
        else:
            return
        if not self._listeners:
            return
        if not self._changed:
            self._loop.call_soon(self._tell_changes)
        self._changed[model_id] = state

    def _tell_changes(self) -> None:
        frame = encode(FrameKind.MODELS, 0, body=encode_news(self._changed))
        self._changed.clear()
        for listener in self._listeners:
            if listener.is_paused:
                self._behind.add(listener)
            elif listener not in self._behind:
                listener.send(frame)
