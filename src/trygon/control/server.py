"""The control link's server: peers, their messages, and tables pushed to all of them.

It decodes, keeps track of who is there, and decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from trygon.spec.control import Call, FromPeer, Hello, Reply, TableApplied, TableChanged, ToPeer
from trygon.spec.routing import RoutingTable
from trygon.spec.wire import MessageReader, pack

__all__ = ["ControlServer", "Peer"]

logger = logging.getLogger("trygon.control")


class Peer(asyncio.Protocol):
    """One connection of an ingress, a replica or a client."""

    def __init__(self, server: ControlServer) -> None:
        self._server = server
        self._reader: MessageReader[FromPeer] = MessageReader(FromPeer)
        self._transport: asyncio.Transport | None = None
        #: True while the peer reads too slowly; tables are then skipped but for the newest.
        self._paused = False
        self._owes_table = False
        #: None until its Hello came.
        self.hello: Hello | None = None
        #: Newest table version it routes by; 0 before the first.
        self.applied_version = 0
        #: Unique among the connections of this controller.
        self.name = f"{id(self):x}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no sub-class.
        self._transport = cast("asyncio.Transport", transport)
        self._server.peers.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._reader.feed(data)
        except (ValueError, msgspec.DecodeError):
            logger.exception("a peer sent something unreadable and is cut off: %s", self.hello)
            self.close()
            return
        for message in messages:
            self._take(message)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._owes_table:
            self.push_table()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        self._server.on_lost(self)

    def send(self, message: ToPeer) -> None:
        """Send one message; nothing happens when the peer is gone."""
        self.write(pack(message))

    def write(self, data: bytes) -> None:
        """Send a packed message."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def reply(self, seq: int, value: Any = None) -> None:
        """Answer a call."""
        self.send(Reply(seq=seq, value=value))

    def refuse(self, seq: int, error: Exception) -> None:
        """Answer a call with an error that the caller raises."""
        self.send(Reply(seq=seq, error_kind=type(error).__name__, error=str(error)))

    def push_table(self) -> None:
        """Send the newest table, now or when the peer reads again."""
        # A watchdog writes and never reads.
        if self.hello is None or self.hello.role == "watchdog":
            return
        self._owes_table = self._paused
        if not self._paused:
            self.write(self._server.packed_table)

    def close(self) -> None:
        """Cut the connection off."""
        if self._transport is not None:
            self._transport.close()

    def _take(self, message: FromPeer) -> None:
        if isinstance(message, Hello):
            self.hello = message
            self._server.introduce(self, message)
            self.push_table()
            self._server.on_hello(self)
        elif isinstance(message, TableApplied):
            self.applied_version = max(self.applied_version, message.version)
            self._server.on_applied(self)
        elif isinstance(message, Call):
            self._server.on_call(self, message)
        else:
            self._server.on_message(self, message)


class ControlServer:
    """Accepts peers on the socket that the supervisor holds.

    The callbacks are set by the controller before `start`.
    """

    def __init__(self) -> None:
        #: Every open connection, before its Hello too.
        self.peers: set[Peer] = set()
        #: Those that said who they are, by role, in the order they came.
        self._by_role: dict[str, dict[Peer, None]] = {}
        #: The newest connection of each replica, by id.
        self._replicas: dict[str, Peer] = {}
        self.table = RoutingTable()
        self.packed_table = pack(TableChanged(table=self.table))
        self.on_hello: Callable[[Peer], None] = _ignore
        self.on_lost: Callable[[Peer], None] = _ignore
        self.on_applied: Callable[[Peer], None] = _ignore
        self.on_call: Callable[[Peer, Call], None] = _ignore
        self.on_message: Callable[[Peer, FromPeer], None] = _ignore
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Peer(self), sock=listener)

    async def close(self) -> None:
        """Stop accepting and end all connections."""
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.close()

    def publish(self, table: RoutingTable) -> None:
        """Push a table to every peer, encoded once."""
        self.table = table
        self.packed_table = pack(TableChanged(table=table))
        for peer in self.peers:
            peer.push_table()

    def of_role(self, role: str) -> Iterator[Peer]:
        """Yield the peers of a role."""
        yield from tuple(self._by_role.get(role, ()))

    def replica(self, replica_id: str) -> Peer | None:
        """Return a replica's connection, or None when it has none at the moment."""
        return self._replicas.get(replica_id)

    def introduce(self, peer: Peer, hello: Hello) -> None:
        """File a peer under who it says it is."""
        self._by_role.setdefault(hello.role, {})[peer] = None
        if hello.role == "replica":
            self._replicas[hello.peer_id] = peer

    def forget(self, peer: Peer) -> None:
        """Drop a peer whose connection ended."""
        self.peers.discard(peer)
        if peer.hello is not None:
            self._by_role.get(peer.hello.role, {}).pop(peer, None)
            if self._replicas.get(peer.hello.peer_id) is peer:
                del self._replicas[peer.hello.peer_id]


def _ignore(*_: Any) -> None:
    """Stand in for a callback that nobody set."""
