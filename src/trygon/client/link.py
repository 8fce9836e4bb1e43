"""The control link as a peer sees it: calls, one-way messages, tables, and a controller that may restart.

Used by ingress processes, replicas and clients alike. Never on a request's path.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, cast

import msgspec

from trygon import errors
from trygon.errors import InstanceError, TrygonError
from trygon.spec.control import (
    ApplicationChanged,
    Call,
    DeleteApplication,
    DeployApplications,
    DrainReplica,
    Explain,
    FromPeer,
    GetDetails,
    GetGoal,
    GetHistory,
    GetStatus,
    Hello,
    InstanceInfo,
    Reconfigure,
    Reply,
    ScaleDeployment,
    Shutdown,
    TableChanged,
    ToPeer,
    UndoApplication,
    WaitApplications,
    WaitDeleted,
)
from trygon.spec.routing import RoutingTable
from trygon.spec.wire import MessageReader, pack

__all__ = ["ControlLink", "Notice", "Request"]

Request = (
    DeployApplications
    | WaitApplications
    | DeleteApplication
    | WaitDeleted
    | GetGoal
    | GetStatus
    | GetHistory
    | UndoApplication
    | ScaleDeployment
    | Explain
    | GetDetails
    | InstanceInfo
    | Shutdown
)
#: What the controller sends a peer besides replies and tables.
Notice = ApplicationChanged | Reconfigure | DrainReplica

#: The supervisor holds the listening socket, so a connect succeeds at once while the controller
#: restarts; the pause only matters when a controller dies again and again.
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 1.0

logger = logging.getLogger("trygon.client")


class _Connection(asyncio.Protocol):
    def __init__(self, link: ControlLink) -> None:
        self._link = link
        self._reader: MessageReader[ToPeer] = MessageReader(ToPeer)
        self.transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no sub-class.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._reader.feed(data)
        except (ValueError, msgspec.DecodeError):
            logger.exception("the control link sent something unreadable")
            if self.transport is not None:
                self.transport.abort()
            return
        for message in messages:
            self._link._take(message)  # noqa: SLF001 - the two classes are one part

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)


class ControlLink:
    """One peer's connection to the controller, kept up until `close`.

    Callbacks run on the loop and must not block.

    Args:
        address: Unix socket path of the controller.
        hello: Who this peer is; sent first on every connection.
        on_table: Gets each routing table that is newer than the last one.
        on_notice: Gets DrainReplica, Reconfigure and ApplicationChanged.
        on_gone: Called once when the instance itself has ended (nobody listens any more).
    """

    def __init__(
        self,
        address: str,
        hello: Hello,
        *,
        on_table: Callable[[RoutingTable], None] | None = None,
        on_notice: Callable[[Notice], None] | None = None,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        self._address = address
        self._hello = hello
        self._on_table = on_table
        self._on_notice = on_notice
        self._on_gone = on_gone
        #: Sent again after Hello on every new connection.
        self._announcements: list[FromPeer] = []
        #: Unanswered calls by seq; they are sent again on a new connection.
        self._pending: dict[int, tuple[Request, asyncio.Future[Any]]] = {}
        self._seq = 0
        self._table: RoutingTable | None = None
        self._connection: _Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._gone = False

    @property
    def table(self) -> RoutingTable | None:
        """The newest routing table, or None before the first."""
        return self._table

    @property
    def connected(self) -> bool:
        """True while a controller is at the other end."""
        return self._connection is not None

    async def open(self, *, timeout_s: float = 10.0) -> None:
        """Connect and say hello; later connections are made without being asked.

        Raises:
            InstanceError: Nobody listens at the address.
        """
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._connect()
        except (OSError, TimeoutError) as error:
            raise InstanceError(
                f"no instance answers at {self._address!r} ({str(error) or 'timed out'}); is it still running?"
            ) from None
        self._greet(connection)
        self._keeper = asyncio.get_running_loop().create_task(self._keep(connection))

    async def close(self, *, timeout_s: float = 1.0) -> None:
        """Let what was sent leave, then drop the connection; unanswered calls fail with InstanceError."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None and connection.transport is not None:
            connection.transport.close()
            await asyncio.wait([connection.closed], timeout=timeout_s)
        self._fail_pending("the link to the instance was closed")

    async def call(self, request: Request, *, timeout_s: float | None = None) -> Any:
        """Ask the controller, and wait for its answer through restarts of the controller.

        Raises:
            TrygonError: The class named by the controller, most often DeployError.
            InstanceError: The instance ended before it answered.
            TimeoutError: No answer within `timeout_s`.
        """
        if self._gone or self._keeper is None:
            raise InstanceError(f"the instance at {self._address!r} is gone")
        if isinstance(request, DeployApplications | UndoApplication) and not request.token:
            # The call is sent again to a restarted controller, which must not deploy twice.
            request = msgspec.structs.replace(request, token=os.urandom(8).hex())
        self._seq += 1
        seq = self._seq
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # First of all: what cannot be packed must not be sent again to every later controller.
        data = pack(Call(seq=seq, request=request))
        self._pending[seq] = (request, future)
        if self._connection is not None:
            self._connection.write(data)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise TimeoutError(
                f"the controller of the instance at {self._address!r} did not answer within {timeout_s} s"
            ) from None
        finally:
            self._pending.pop(seq, None)

    def send(self, message: FromPeer) -> None:
        """Send a one-way message; lost when no controller is there at the moment."""
        if self._connection is not None:
            self._connection.write(pack(message))

    def announce(self, message: FromPeer) -> None:
        """Send a one-way message now, and again to every later controller (ReplicaReady, TableApplied)."""
        self._announcements = [m for m in self._announcements if type(m) is not type(message)]
        self._announcements.append(message)
        self.send(message)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(lambda: _Connection(self), self._address)
        return connection

    def _greet(self, connection: _Connection) -> None:
        self._connection = connection
        connection.write(pack(self._hello))
        for message in self._announcements:
            connection.write(pack(message))
        for seq, (request, _) in self._pending.items():
            connection.write(pack(Call(seq=seq, request=request)))

    async def _keep(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_PAUSE_S
        while True:
            since = loop.time()
            await connection.closed
            self._connection = None
            if loop.time() - since > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                connection = await self._connect()
            except (ConnectionRefusedError, FileNotFoundError):
                # The supervisor holds this socket: when nobody listens, the whole instance is gone.
                self._end()
                return
            except OSError as error:
                logger.warning("the controller cannot be reached, trying again: %s", error)
                continue
            self._greet(connection)

    def _end(self) -> None:
        self._gone = True
        self._fail_pending(f"the instance at {self._address!r} ended")
        if self._on_gone is not None:
            self._on_gone()

    def _fail_pending(self, why: str) -> None:
        for request, future in self._pending.values():
            if future.done():
                continue
            if isinstance(request, Shutdown | DeleteApplication | WaitDeleted):
                # What was asked for has happened: nothing is left of the instance.
                future.set_result(None)
            else:
                future.set_exception(InstanceError(why))

    def _take(self, message: ToPeer) -> None:
        if isinstance(message, Reply):
            self._take_reply(message)
        elif isinstance(message, TableChanged):
            if self._table is None or message.table.version > self._table.version:
                self._table = message.table
                if self._on_table is not None:
                    self._on_table(message.table)
        elif self._on_notice is not None:
            self._on_notice(message)

    def _take_reply(self, reply: Reply) -> None:
        entry = self._pending.pop(reply.seq, None)
        if entry is None or entry[1].done():
            return
        if not reply.error_kind:
            entry[1].set_result(reply.value)
            return
        kind = getattr(errors, reply.error_kind, None)
        if not (isinstance(kind, type) and issubclass(kind, TrygonError)):
            kind = InstanceError
        entry[1].set_exception(kind(reply.error))
