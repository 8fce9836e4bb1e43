"""The HTTP server of one ingress process: accepts, sweeps, drains."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from trygon.clock import Clock, RealClock
from trygon.dataplane.gateway import Gateway
from trygon.protocols.http.access_log import AccessLog
from trygon.protocols.http.connection import HttpConnection
from trygon.protocols.http.front import Front, Peer
from trygon.protocols.http.metrics import ConnectionCounts, IngressMetrics
from trygon.protocols.http.settings import HttpSettings

if TYPE_CHECKING:
    # What serves plain HTTP need not load it.
    import ssl

__all__ = ["HttpServer", "HttpStatistics"]

#: Connections accepted in one turn of the loop (about 60 us each), so that a burst does not hold up requests.
_MAX_ACCEPTS_PER_TURN: Final = 4
#: Connections ended in one turn of the loop because their time is over (about 40 us each).
_MAX_VISITS_PER_TURN: Final = 8
_ACCEPT_BACKOFF_S: Final = 0.2
#: TLS handshakes under way when the server drains get this long; their requests have not been sent yet.
_HANDSHAKE_GRACE_S: Final = 1.0
#: From our close_notify to the client's.
_TLS_CLOSE_S: Final = 5.0
_OUT_OF_DESCRIPTORS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class HttpStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What an `HttpServer` holds and has done."""

    connections: int
    #: Between two requests.
    idle: int
    #: In the middle of a head or a small body, or saying good-bye.
    incomplete: int
    active: int
    websockets: int
    #: Requests answered, by status class ("2xx").
    requests: dict[str, int]
    latency_sum_s: float
    #: Of small bodies being collected.
    buffered_bytes: int
    accepted: int
    #: Connections closed to make room.
    shed: int
    #: Newcomers for which there was no room.
    refused: int
    access_log_lines_lost: int


class HttpServer:
    """Serves HTTP/1.1 and websockets from a listening socket to a `Gateway`.

    Args:
        sock: Bound and listening; stays the caller's.
        gateway: Where requests go.
        settings: Limits and timeouts.
        loop: The running loop.
        access_log_fd: Where access log lines go when `settings.access_log` is set.
        access_log_copy: Called with the same lines.
        clock: Tells the time.
        tls: Gives what each new connection is made with; None serves plain HTTP.
    """

    def __init__(  # noqa: PLR0913 - a composition of parts that only the root knows
        self,
        sock: socket.socket,
        gateway: Gateway,
        settings: HttpSettings | None = None,
        *,
        loop: asyncio.AbstractEventLoop,
        access_log_fd: int = 2,
        access_log_copy: Callable[[str], None] | None = None,
        clock: Clock | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        clock = clock or RealClock()
        settings = settings or HttpSettings()
        log = None
        if settings.access_log or settings.access_log_by_route:
            as_json = settings.access_log_as_json
            log = AccessLog(
                access_log_fd, settings.ingress_id, loop, clock, as_json=as_json, copy=access_log_copy
            )
        self._front = Front(gateway, settings, loop, clock, log)
        self._loop = loop
        self._wall = clock.wall
        self._sock = sock
        self._accepting = False
        self._backoff: asyncio.TimerHandle | None = None
        self._tls = tls
        #: Connections that are being made (with TLS, until the handshake is done), oldest first.
        self._adopting: dict[asyncio.Task[None], None] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._num_accepted = 0
        #: Peers whose deadline may have passed, to be visited.
        self._due: deque[Peer] = deque()

    def set_timeouts(self, *, request_timeout_s: float, keep_alive_timeout_s: float) -> None:
        """Use these for requests, and waits for requests, that begin from now on."""
        front = self._front
        front.settings = msgspec.structs.replace(
            front.settings, request_timeout_s=request_timeout_s, keep_alive_timeout_s=keep_alive_timeout_s
        )

    def count_into(self, metrics: IngressMetrics) -> Callable[[], None]:
        """Count every request from now on; return what fills the rest in before a publication."""
        self._front.metrics = metrics

        def collect() -> None:
            found = self.statistics()
            metrics.collect(
                ConnectionCounts(
                    found.connections, max(found.active, 0), found.websockets, found.shed, found.refused
                )
            )

        return collect

    # ---- life

    def start(self) -> None:
        """Begin to accept."""
        self._front.prefixes.set_time(self._wall())
        self._sock.setblocking(False)
        self._sweeper = self._loop.call_later(self._front.settings.sweep_s, self._sweep)
        self._start_accepting()

    async def drain(self, grace_s: float) -> None:
        """Stop accepting, let requests in work finish for up to `grace_s`, then cut the rest."""
        front = self._front
        front.draining = True
        self._stop_accepting()
        await self._finish_adopting()
        for peer in tuple(front.connections):
            peer.drain()
        if front.connections:
            front.gone = self._loop.create_future()
            try:
                async with asyncio.timeout(grace_s):
                    await asyncio.shield(front.gone)
            except TimeoutError:
                for peer in tuple(front.connections):
                    peer.abort()
                await front.gone
        self._stop()

    async def _finish_adopting(self) -> None:
        if self._adopting:
            _, late = await asyncio.wait(tuple(self._adopting), timeout=_HANDSHAKE_GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._front.stop()
        if self._front.log is not None:
            self._front.log.close()

    def statistics(self) -> HttpStatistics:
        """Return what is open and what was done."""
        front = self._front
        num_idle, num_incomplete = len(front.idle), len(front.incomplete)
        return HttpStatistics(
            connections=len(front.connections),
            idle=num_idle,
            incomplete=num_incomplete,
            active=len(front.connections) - front.num_websockets - num_idle - num_incomplete,
            websockets=front.num_websockets,
            requests={"%dxx" % n: count for n, count in enumerate(front.num_by_class) if count},
            latency_sum_s=front.latency_sum_s,
            buffered_bytes=front.buffered_bytes,
            accepted=self._num_accepted,
            shed=front.num_shed,
            refused=front.num_refused,
            access_log_lines_lost=front.log.num_lost if front.log is not None else 0,
        )

    # ---- accepting

    def _start_accepting(self) -> None:
        self._backoff = None
        if not self._accepting and not self._front.draining:
            self._accepting = True
            self._loop.add_reader(self._sock.fileno(), self._accept)

    def _stop_accepting(self) -> None:
        if self._backoff is not None:
            self._backoff.cancel()
            self._backoff = None
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._sock.fileno())

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS_PER_TURN):
            try:
                sock, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                # The connection stays in the backlog and the socket readable: wait, or the loop would spin.
                self._stop_accepting()
                if not self._adopting:
                    # Else the newcomers of this turn are not known to be incomplete yet, and an idle
                    # connection would go for them; there is room to be made after the pause.
                    self._front.make_room()
                self._backoff = self._loop.call_later(_ACCEPT_BACKOFF_S, self._start_accepting)
                return
            sock.setblocking(False)
            self._num_accepted += 1
            if self._tls is not None:
                self._bound_handshakes()
            task = self._loop.create_task(self._adopt(sock))
            self._adopting[task] = None
            task.add_done_callback(self._adopted)

    def _adopted(self, task: asyncio.Task[None]) -> None:
        self._adopting.pop(task, None)

    def _bound_handshakes(self) -> None:
        """Give up the oldest handshake when there is room for no more connections: it is incomplete like a head."""
        if len(self._front.connections) + len(self._adopting) >= self._front.max_connections:
            oldest = next(iter(self._adopting), None)
            if oldest is not None:
                self._front.num_shed += 1
                del self._adopting[oldest]
                oldest.cancel()

    async def _adopt(self, sock: socket.socket) -> None:
        try:
            if self._tls is None:
                await self._loop.connect_accepted_socket(self._make_connection, sock)
            else:
                await self._loop.connect_accepted_socket(
                    self._make_connection,
                    sock,
                    ssl=self._tls(),
                    ssl_handshake_timeout=self._front.settings.header_timeout_s,
                    ssl_shutdown_timeout=_TLS_CLOSE_S,
                )
        except (OSError, asyncio.CancelledError):
            # A handshake that failed too: ssl.SSLError and TimeoutError are OSErrors.
            sock.close()

    def _make_connection(self) -> HttpConnection:
        return HttpConnection(self._front)

    # ---- time

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(self._front.settings.sweep_s, self._sweep)
        front = self._front
        front.prefixes.set_time(self._wall())
        is_visiting = bool(self._due)
        self._due.extend(front.wheel.sweep(front.monotonic()))
        if self._due and not is_visiting:
            self._visit()

    def _visit(self) -> None:
        """Visit a few of those whose deadline has come, then let requests pass: thousands may expire at once."""
        now = self._front.monotonic()
        for _ in range(min(_MAX_VISITS_PER_TURN, len(self._due))):
            self._due.popleft().on_deadline(now)
        if self._due:
            self._loop.call_soon(self._visit)
