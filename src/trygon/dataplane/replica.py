"""A replica's data plane: takes frames, runs user code, answers with frames.

Async code runs as a task on this loop, synchronous code in the request pool. `max_ongoing_requests`
is enforced here, over all callers: one more is rejected at once and its caller tries elsewhere.
"""

from __future__ import annotations

import asyncio
import os

from trygon.dataplane.call_runner import CallRunner
from trygon.dataplane.concurrency import GradientLimit
from trygon.dataplane.exchanges import Exchange, HttpExchange
from trygon.dataplane.frames import FrameFlag, FrameKind, encode
from trygon.dataplane.http_runner import HttpRunner
from trygon.dataplane.models.board import ModelBoard
from trygon.dataplane.segments import Segment
from trygon.dataplane.slots import Slots
from trygon.dataplane.transport import FrameConnection
from trygon.dataplane.tuned_slots import TunedSlots
from trygon.dataplane.user_callable import UserCallable

__all__ = ["Replica", "ReplicaConnection"]

_EXTERNAL = int(FrameFlag.EXTERNAL)
_HTTP = int(FrameKind.HTTP)
_CALL = int(FrameKind.CALL)
_DATA = int(FrameKind.DATA)
_CREDIT = int(FrameKind.CREDIT)
_CANCEL = int(FrameKind.CANCEL)
_PING = int(FrameKind.PING)
_PONG = int(FrameKind.PONG)
_REJECT = int(FrameKind.REJECT)
_MODELS = int(FrameKind.MODELS)

#: A caller that was told of room has sent its request long before; see `Replica._announce_room`.
ROOM_RETRY_S = 0.005


class ReplicaConnection(FrameConnection):
    """One caller's connection to this replica."""

    __slots__ = ("_held", "exchanges", "replica")

    def __init__(self, loop: asyncio.AbstractEventLoop, replica: Replica) -> None:
        super().__init__(loop)
        self.replica = replica
        self.exchanges: dict[int, Exchange] = {}
        #: Segments of results that the caller has not mapped yet.
        self._held: dict[int, list[Segment]] = {}

    @property
    def load(self) -> int:
        """Requests in work in this replica, of all callers."""
        return self.replica.ongoing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.replica.connected(self)

    def on_frame(  # noqa: PLR0913 - a frame's fields; a value object costs more than the rest
        self, kind: int, stream: int, flags: int, status: int, value: int, head: bytes, body: bytes
    ) -> None:
        if kind == _HTTP:
            if self.replica.has_slot(self, stream):
                self.replica.http.begin(self, stream, flags, head, body, value)
        elif kind == _CALL:
            if self.replica.has_slot(self, stream):
                self.replica.calls.begin(self, stream, flags, head, body, value)
        elif kind == _PING:
            self.send(encode(_PONG, 0, value=value))
        else:
            self._on_exchange_frame(kind, stream, flags, value, body)

    def _on_exchange_frame(self, kind: int, stream: int, flags: int, value: int, body: bytes) -> None:
        if kind == _CREDIT and flags & _EXTERNAL:
            held = self._held.get(stream)
            if held:
                held.pop(0).close()
                if not held:
                    del self._held[stream]
            return
        exchange = self.exchanges.get(stream)
        if exchange is None:
            if kind == _MODELS:
                self.replica.models.subscribe(self)
            return
        if kind == _CREDIT:
            exchange.on_credit(value)
        elif kind == _DATA:
            exchange.on_data(body, flags)
        elif kind == _CANCEL:
            self.replica.cancel(exchange)

    def hold(self, stream: int, segment: Segment) -> None:
        """Keep a result's segment until the caller has mapped it or is gone."""
        self._held.setdefault(stream, []).append(segment)

    def on_resumed(self) -> None:
        self.replica.models.catch_up(self)
        for exchange in list(self.exchanges.values()):
            exchange.wake()

    def on_lost(self, error: BaseException | None) -> None:
        for held in self._held.values():
            for segment in held:
                segment.close()
        self._held.clear()
        exchanges = list(self.exchanges.values())
        for exchange in exchanges:
            exchange.release()
            self.replica.cancel(exchange)
        self.exchanges.clear()
        self.replica.disconnected(self)


class Replica:
    """Counts, runs and drains the requests of one replica."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        user: UserCallable,
        *,
        app_name: str,
        max_ongoing_requests: int,
        tuner: GradientLimit | None = None,
    ) -> None:
        self.loop = loop
        self.slots = (
            Slots(max_ongoing_requests, self._on_free)
            if tuner is None
            else TunedSlots(tuner, self._on_free, self.resize, loop.time)
        )
        self.http = HttpRunner(loop, user, self.slots, app_name=app_name)
        self.calls = CallRunner(loop, user, self.slots, app_name=app_name)
        #: The models that the user's code holds, and who is told of them.
        self.models = ModelBoard(loop)
        self.is_draining = False
        self._connections: set[ReplicaConnection] = set()
        #: Of connections that are gone.
        self._bytes_in = self._bytes_out = 0
        #: Callers that were rejected and are told, in turn, when there is room.
        self._rejected: dict[ReplicaConnection, None] = {}
        self._room_timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._server: asyncio.AbstractServer | None = None

    @property
    def ongoing(self) -> int:
        """Requests in work, of all callers."""
        return self.slots.ongoing

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes that came from callers and went to them."""
        connections = self._connections
        return (
            self._bytes_in + sum(connection.bytes_in for connection in connections),
            self._bytes_out + sum(connection.bytes_out for connection in connections),
        )

    # ---- listening and draining

    async def listen(self, path: str) -> None:
        """Take callers on the Unix socket `path`.

        Raises:
            OSError: The socket cannot be bound.
        """
        self._server = await self.loop.create_unix_server(lambda: ReplicaConnection(self.loop, self), path)
        # Its folder is the owner's alone already; this is the second door.
        os.chmod(path, 0o600)

    def connected(self, connection: ReplicaConnection) -> None:
        """Count a caller."""
        self._connections.add(connection)

    def disconnected(self, connection: ReplicaConnection) -> None:
        """Forget a caller."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._bytes_in += connection.bytes_in
            self._bytes_out += connection.bytes_out
        self._rejected.pop(connection, None)
        self.models.unsubscribe(connection)
        self._check_idle()

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new, let ongoing requests end and callers leave; False if time ran out.

        Callers leave by themselves when the routing table no longer lists this replica; a request that
        crosses that news is rejected and its caller sends it elsewhere, so none is lost.
        """
        self.is_draining = True
        if self._server is not None:
            self._server.close()
        self._check_idle()
        if self.slots.ongoing or self._connections:
            self._idle = self.loop.create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle
            except TimeoutError:
                return False
        return True

    async def cancel_all(self, grace_s: float) -> None:
        """Cancel every request and give the tasks `grace_s` seconds to end."""
        self.slots.is_ending = True
        tasks = []
        for connection in self._connections:
            for exchange in list(connection.exchanges.values()):
                if exchange.task is not None:
                    tasks.append(exchange.task)
                    exchange.mark_gone()
                    exchange.on_cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)

    def close(self) -> None:
        """Drop every caller and stop listening."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()

    def _check_idle(self) -> None:
        if (
            self._idle is not None
            and not self._idle.done()
            and not self.slots.ongoing
            and not self._connections
        ):
            self._idle.set_result(None)

    # ---- slots

    def resize(self, max_ongoing_requests: int) -> None:
        """Take so many requests at once from now on; those in work finish when there are more."""
        room = max_ongoing_requests - self.slots.limit
        self.slots.limit = max_ongoing_requests
        for _ in range(room):
            if self._rejected and not self.slots.is_full and not self.is_draining:
                self._announce_room()

    def has_slot(self, connection: ReplicaConnection, stream: int) -> bool:
        """Whether one more request may begin; one that may not is rejected here."""
        slots = self.slots
        if not slots.is_full and not self.is_draining:
            return True
        connection.send(encode(_REJECT, stream, value=slots.ongoing))
        if not self.is_draining:
            self._rejected[connection] = None
        return False

    def _on_free(self) -> None:
        if self._rejected:
            self._announce_room()
        if self._idle is not None:
            self._check_idle()

    def _announce_room(self) -> None:
        """Tell the caller that was rejected first; one caller for each slot, so that they do not race.

        It may have nothing to send any more, be frozen or gone; so the next one is told when the slot is
        still free a moment later.
        """
        connection = next(iter(self._rejected))
        del self._rejected[connection]
        connection.send(encode(_CREDIT, 0, value=1))
        if self._rejected and self._room_timer is None:
            self._room_timer = self.loop.call_later(ROOM_RETRY_S, self._announce_again)

    def _announce_again(self) -> None:
        self._room_timer = None
        if self._rejected and not self.slots.is_full and not self.is_draining:
            self._announce_room()

    def cancel(self, exchange: Exchange) -> None:
        """End a request that nobody waits for."""
        exchange.mark_gone()
        if isinstance(exchange, HttpExchange) and exchange.is_websocket:
            # Delivered to user code as a disconnect, as ASGI says.
            return
        exchange.on_cancel()
