"""What all connections of one HTTP server share: settings, tables, deadlines, counters, and the room there is."""

from __future__ import annotations

import asyncio
import os
import resource
from typing import Final, Protocol

from trygon.clock import Clock
from trygon.dataplane.gateway import Gateway
from trygon.observability.metrics import REGISTRY
from trygon.protocols.http.access_log import AccessLog
from trygon.protocols.http.head import HeadParser
from trygon.protocols.http.metrics import IngressMetrics
from trygon.protocols.http.responses import Prefixes
from trygon.protocols.http.settings import HttpSettings
from trygon.protocols.http.timers import TimerWheel

__all__ = ["Connection", "Front", "Peer"]

#: Deadlines of requests are this exact.
_REQUEST_SWEEP_S: Final = 0.05
#: Newcomers that are being told 503 beyond the cap; more are closed without a word.
_MAX_REFUSED: Final = 64
_MAX_CONNECTIONS: Final = 20_000


class Peer(Protocol):
    """An open connection, whatever it speaks."""

    def on_deadline(self, now: float) -> None:
        """A deadline that was asked for may have passed."""

    def drain(self) -> None:
        """End as soon as nothing is lost by it."""

    def abort(self) -> None:
        """End now."""


class Connection(Peer, Protocol):
    """An open connection that speaks HTTP."""

    def opened(self) -> None:
        """There is room: wait for requests."""

    def refuse_newcomer(self) -> None:
        """There is no room: say so and end."""

    def shed(self) -> None:
        """End to make room; no complete request is in work."""

    def on_timeout(self, now: float) -> None:
        """The deadline of a request may have passed."""


class Front:
    """The shared state; `HttpServer` owns it, connections read and change it on every request."""

    __slots__ = (
        "_id_block",
        "_id_count",
        "_id_prefix",
        "_id_tails",
        "_refused",
        "_request_sweeper",
        "_request_wheel",
        "buffered_bytes",
        "collecting",
        "connections",
        "draining",
        "gateway",
        "gone",
        "idle",
        "incomplete",
        "latency_sum_s",
        "log",
        "loop",
        "max_connections",
        "metrics",
        "monotonic",
        "num_by_class",
        "num_refused",
        "num_shed",
        "num_websockets",
        "prefixes",
        "rules",
        "scheme",
        "settings",
        "wheel",
    )

    def __init__(
        self,
        gateway: Gateway,
        settings: HttpSettings,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        log: AccessLog | None,
    ) -> None:
        self.gateway = gateway
        self.settings = settings
        self.loop = loop
        self.monotonic = clock.monotonic
        self.rules = HeadParser(settings)
        self.prefixes = Prefixes()
        self.scheme = settings.scheme
        self.log = log
        #: Where each request is counted; None counts none.
        self.metrics: IngressMetrics | None = None
        #: Every answer ends its connection from now on.
        self.draining = False
        #: Set when the last connection has gone, if somebody waits for that.
        self.gone: asyncio.Future[None] | None = None

        self.max_connections = settings.max_connections or _default_max_connections()
        #: Every open connection, oldest first.
        self.connections: dict[Peer, None] = {}
        self._refused: set[Peer] = set()
        #: Those between two requests, longest waiting first.
        self.idle: dict[Connection, object] = {}
        #: Those in the middle of a head or a small body, or lingering; oldest first.
        self.incomplete: dict[Connection, object] = {}
        #: Those with a small body being collected, oldest first; and the bytes they hold.
        self.collecting: dict[Connection, object] = {}
        self.buffered_bytes = 0
        now = self.monotonic()
        self.wheel: TimerWheel[Peer] = TimerWheel(settings.sweep_s, now)
        self._request_wheel: TimerWheel[Connection] = TimerWheel(_REQUEST_SWEEP_S, now)
        self._request_sweeper: asyncio.TimerHandle | None = None

        #: Requests answered, by the first digit of their status.
        self.num_by_class = [0] * 10
        self.latency_sum_s = 0.0
        self.num_shed = 0
        self.num_refused = 0
        self.num_websockets = 0

        # Request ids: 16 random digits of this process, 13 counted in blocks, 3 from a table.
        self._id_prefix = os.urandom(8).hex()
        self._id_block = ""
        self._id_count = 0
        self._id_tails = tuple("%03x" % n for n in range(4096))

    def next_request_id(self) -> str:
        """Return an id that no other request has."""
        count = self._id_count
        self._id_count = count + 1
        tail = count & 4095
        if not tail:
            self._id_block = "%s%013x" % (self._id_prefix, count >> 12)
        return self._id_block + self._id_tails[tail]

    # ---- connections

    def connection_opened(self, connection: Connection) -> None:
        """Count a connection; make room for it, or refuse it when all others are at work."""
        self._tell_metrics()
        is_full = len(self.connections) - len(self._refused) >= self.max_connections
        self.connections[connection] = None
        if is_full and not self.make_room():
            self.num_refused += 1
            if len(self._refused) >= _MAX_REFUSED:
                connection.abort()
            else:
                self._refused.add(connection)
                connection.refuse_newcomer()
                # It lingers beside the cap, so it is no room to be made.
                self.incomplete.pop(connection, None)
            return
        connection.opened()
        if self.draining:
            connection.drain()

    def connection_closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._refused.discard(connection)
        self.idle.pop(connection, None)
        self.incomplete.pop(connection, None)
        self._request_wheel.discard(connection)
        self._forget(connection)

    def session_opened(self, session: Peer) -> None:
        """Count a websocket, before the connection it was is closed."""
        self.num_websockets += 1
        self.connections[session] = None

    def session_closed(self, session: Peer) -> None:
        """Forget a websocket."""
        self.num_websockets -= 1
        self._forget(session)

    def _tell_metrics(self) -> None:
        if REGISTRY.is_quiet and self.metrics is not None:
            REGISTRY.wake()

    def _forget(self, peer: Peer) -> None:
        self._tell_metrics()
        self.connections.pop(peer, None)
        self.wheel.discard(peer)
        if self.gone is not None and not self.connections and not self.gone.done():
            self.gone.set_result(None)

    def make_room(self) -> bool:
        """Close the oldest incomplete connection, or else the longest idle one; never one at work."""
        for waiting in (self.incomplete, self.idle):
            for victim in waiting:
                self.num_shed += 1
                del waiting[victim]
                victim.shed()
                return True
        return False

    def shed_buffered(self) -> None:
        """Too many bytes of small bodies are held: end the oldest such request."""
        for victim in self.collecting:
            self.num_shed += 1
            victim.shed()
            return

    # ---- deadlines of requests

    def add_request_deadline(self, connection: Connection, deadline: float) -> None:
        """Call `connection.on_timeout` after `deadline`."""
        self._request_wheel.add(connection, deadline)
        if self._request_sweeper is None:
            self._request_sweeper = self.loop.call_later(_REQUEST_SWEEP_S, self._sweep_requests)

    def _sweep_requests(self) -> None:
        self._request_sweeper = None
        now = self.monotonic()
        for connection in self._request_wheel.sweep(now):
            connection.on_timeout(now)
        if self._request_sweeper is None and len(self._request_wheel):
            self._request_sweeper = self.loop.call_later(_REQUEST_SWEEP_S, self._sweep_requests)

    def stop(self) -> None:
        """Stop the timer of request deadlines."""
        if self._request_sweeper is not None:
            self._request_sweeper.cancel()
            self._request_sweeper = None


def _default_max_connections() -> int:
    """Leave a tenth of the descriptors, and 64 at least, to everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(16, min(_MAX_CONNECTIONS, soft - max(64, soft // 10)))
