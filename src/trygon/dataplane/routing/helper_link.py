"""A caller's connection to the helper that runs a router of the user's: questions of one turn leave in one write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

import msgspec

from trygon.spec.helper import ROUTING, ROUTING_STATS, Answer, Ask, RoutingBatch, RoutingStats
from trygon.spec.wire import MessageReader, pack

__all__ = ["HelperLink"]

#: First and longest pause between two tries to connect.
_PAUSES_S = (0.005, 0.25)
#: A helper that reads nothing for so long that this many bytes wait is as good as gone.
_MAX_UNSENT_BYTES = 8 << 20


class HelperLink(asyncio.Protocol):
    """Connects, and connects again, until it is closed.

    Args:
        loop: Where everything here runs.
        address: The helper's Unix socket.
        deployment: Whose router is asked.
        on_answer: Hears each answer.
        on_change: Hears that the helper is there, or is gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        deployment: str,
        on_answer: Callable[[Answer], None],
        on_change: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._address = address
        self._deployment = deployment
        self._on_answer = on_answer
        self._on_change = on_change
        self._reader: MessageReader[Answer] = MessageReader(Answer)
        self._transport: asyncio.Transport | None = None
        self._task = loop.create_task(self._connect())
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether questions can be sent."""
        return self._transport is not None

    @property
    def is_stuffed(self) -> bool:
        """Whether the helper reads so slowly that nothing more should be sent."""
        return self._transport is not None and self._transport.get_write_buffer_size() > _MAX_UNSENT_BYTES

    def ask(self, batch: RoutingBatch) -> None:
        """Send questions; an answer may come for each."""
        self._send(Ask(seq=0, service=ROUTING, owner=self._deployment, body=batch))

    def tell(self, stats: RoutingStats) -> None:
        """Send what a replica says of itself."""
        self._send(Ask(seq=0, service=ROUTING_STATS, owner=self._deployment, body=stats))

    def _send(self, ask: Ask) -> None:
        if self._transport is not None:
            self._transport.write(pack(ask))

    def close(self) -> None:
        """Let go of the helper."""
        self._is_closed = True
        self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _connect(self) -> None:
        pause_s, longest_s = _PAUSES_S
        while True:
            with contextlib.suppress(OSError):
                await self._loop.create_unix_connection(lambda: self, self._address)
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._is_closed:
            cast("asyncio.Transport", transport).abort()
            return
        # uvloop's transports are no sub-class.
        self._transport = cast("asyncio.Transport", transport)
        self._reader = MessageReader(Answer)
        self._on_change()

    def data_received(self, data: bytes) -> None:
        try:
            answers = self._reader.feed(data)
        except (ValueError, msgspec.DecodeError):
            # Whatever user code made of its helper, it must not end a caller.
            if self._transport is not None:
                self._transport.abort()
            return
        for answer in answers:
            self._on_answer(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._is_closed:
            self._on_change()
            self._task = self._loop.create_task(self._connect())
