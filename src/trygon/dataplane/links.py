"""A caller's side of the connection to one replica: open calls, exact counts, and whether it is alive."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from trygon.dataplane.fairness import Ticket
from trygon.dataplane.frames import FrameFlag, FrameKind, encode
from trygon.dataplane.lines import Lines
from trygon.dataplane.messages import Evidence
from trygon.dataplane.models.news import COMPLETE, ModelState, decode_into
from trygon.dataplane.models.places import ModelPlaces
from trygon.dataplane.transport import FrameConnection

__all__ = ["Call", "LinkOwner", "ReplicaLink", "Withdrawable"]

_MORE = int(FrameFlag.MORE)
_FREED = int(FrameFlag.FREED)
_EXTERNAL = int(FrameFlag.EXTERNAL)
_DATA = int(FrameKind.DATA)
_CREDIT = int(FrameKind.CREDIT)
_PONG = int(FrameKind.PONG)
_REJECT = int(FrameKind.REJECT)


class Withdrawable(Protocol):
    """Where a request waits."""

    def withdraw(self, call: Call) -> None:
        """Forget a request that waits."""


class Call(Protocol):
    """One request of a caller, from `Pool.submit` to its last frame."""

    @property
    def model_id(self) -> str:
        """The model that it is for, or an empty string."""

    @property
    def session_id(self) -> str:
        """The session that it belongs to, or an empty string; asked for by some routers only."""

    def question(self) -> tuple[bool, bytes, bytes]:
        """Return what a router of the user's may look at: whether it came over HTTP, its head and its body."""

    @property
    def ticket(self) -> Ticket:
        """Where it stands in a fair queue."""

    @property
    def due(self) -> float:
        """Loop time after which it must not be started any more; 0 is never."""

    def start(self, link: ReplicaLink, stream: int) -> None:
        """Send the request over `link`; called again on another link after a reject."""

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        """Take a RESPONSE, RESULT, DATA, ERROR or CREDIT frame (a credit's size comes as `status`)."""

    def on_moved(self, pool: Withdrawable) -> None:
        """The request was not taken, and waits in `pool` from now on."""

    def on_lost(self, replica_id: str) -> None:
        """The replica went while it had this request."""

    def on_refused(self, error: Exception) -> None:
        """The request was never started: no replica, a full queue, no such deployment."""

    def evidence(self) -> Evidence | None:
        """Return what is to be known of the request when its replica died; None for one that is over."""


class LinkOwner(Protocol):
    """The pool a link belongs to."""

    @property
    def models(self) -> ModelPlaces | None:
        """Where its models are; None as long as no request named one."""

    def on_room(self, link: ReplicaLink) -> None:
        """The link can take a request that it could not take before."""

    def on_rejected(self, link: ReplicaLink, call: Call) -> None:
        """The replica did not take `call`; send it elsewhere or let it wait."""

    def on_calls_lost(self, link: ReplicaLink, calls: list[Call]) -> None:
        """The replica went while it had these requests; tell them, or send them elsewhere."""

    def on_link_lost(self, link: ReplicaLink) -> None:
        """The connection ended."""

    def on_busy(self) -> None:
        """The link holds a slot that no request took."""

    def take_back(self, call: Call) -> None:
        """Send `call` as if it were new: a replica did not take it from the thread that sent it."""


class ReplicaLink(FrameConnection):
    """The connection from this process to one replica.

    `ongoing` counts requests sent and not yet finished there; it is exact for this caller.
    A replica that rejects is full of others' requests: from then on the link sends one request for each
    slot that it is told of (a CREDIT frame on stream 0) or that an answer of its own frees, until an
    answer shows room again. So nobody polls, and a queue is not thrown at one free slot.
    """

    __slots__ = (
        "_holders",
        "_next_stream",
        "_owner",
        "_streams",
        "budget",
        "heard",
        "is_doubted",
        "is_leaving",
        "is_open",
        "is_suspect",
        "is_watched",
        "lines",
        "max_ongoing",
        "models",
        "num_rejected",
        "ongoing",
        "others",
        "ping_sent_at",
        "replica_id",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: LinkOwner,
        replica_id: str,
        address: str,
        max_ongoing: int,
    ) -> None:
        super().__init__(loop)
        #: Where threads that wait for their answers call by themselves.
        self.lines = Lines(self, address)
        self._owner = owner
        self.replica_id = replica_id
        #: What the replica told of its models; nothing before it was asked.
        self.models: dict[str, ModelState] = {}
        self.max_ongoing = max_ongoing
        #: Requests of this caller that hold a slot of the replica.
        self.ongoing = 0
        #: Requests that the replica did not take.
        self.num_rejected = 0
        #: Slots held by other callers, as of the last answer; the router forgets it bit by bit.
        self.others = 0
        self.is_open = False
        #: True until the replica has answered once, where a connection before this one was lost.
        self.is_doubted = False
        #: Requests that may be sent after a reject; None is no limit but `max_ongoing`.
        self.budget: int | None = None
        #: True when the routing table no longer lists the replica: finish and close.
        self.is_leaving = False
        self.is_suspect = False
        #: Whether the router's liveness tick was asked for; cleared when it stops.
        self.is_watched = False
        #: Set by every arriving byte, cleared by the router's liveness tick.
        self.heard = True
        #: Loop time of the unanswered ping, or 0.
        self.ping_sent_at = 0.0
        #: Open streams; a call stays until its last frame.
        self._streams: dict[int, Call] = {}
        #: Streams that still hold a slot (a finished unit of work may have bytes to come).
        self._holders: set[int] = set()
        self._next_stream = 1

    @property
    def has_room(self) -> bool:
        """Whether a request may be sent now."""
        return (
            self.is_open
            and self.ongoing < self.max_ongoing
            and (self.budget is None or self.budget > 0)
            and not self.is_leaving
        )

    # ---- calls

    def begin(self, call: Call) -> None:
        """Send `call` to this replica."""
        stream = self._next_stream
        # 0 is the connection itself; a wrapped id cannot be in use, four billion requests later.
        self._next_stream = stream + 1 if stream < 0xFFFFFFFF else 1
        self._streams[stream] = call
        self._holders.add(stream)
        self.ongoing += 1
        if self.budget is not None:
            self.budget -= 1
        call.start(self, stream)

    def cancel(self, stream: int) -> None:
        """Tell the replica that nobody waits; nothing more is heard on `stream`."""
        if self._streams.pop(stream, None) is not None:
            self.send(encode(FrameKind.CANCEL, stream))
            # The slot stays taken until the replica says that the work has ended; a cancelled
            # sync handler runs on, and counting it as free would send it more than it can hold.

    def forget(self, stream: int) -> None:
        """Undo `begin` for a call that was never sent."""
        self._streams.pop(stream, None)
        if stream in self._holders:
            self._holders.remove(stream)
            self.ongoing -= 1
            if self.budget is not None:
                self.budget += 1

    def hold_slot(self) -> None:
        """Count a slot for a request that will come, or came another way."""
        self.ongoing += 1
        self._owner.on_busy()

    def release_slot(self, *, announce: bool = True) -> None:
        """Give back what `hold_slot` counted; announced, unless a request takes it in this very step."""
        if self.ongoing > 0:
            self.ongoing -= 1
        if announce:
            self._owner.on_room(self)

    def return_call(self, call: Call) -> None:
        """Give a call that the replica did not take from a line to the owner."""
        self._owner.take_back(call)

    def lose_call(self, call: Call) -> None:
        """Give a call that was on a line when the replica went to the owner."""
        self._owner.on_calls_lost(self, [call])

    def on_line_answer(self, load: int) -> None:
        """Hear the replica's load, a call on a line included; any thread may say so."""
        self.heard = True
        others = load - 1 - self.ongoing
        self.others = others if others > 0 else 0
        if others > 0 and not self.is_watched:
            # Without a tick this number would keep calls on lines away for ever.
            self.is_watched = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._owner.on_busy)

    def on_line_lost(self) -> None:
        """Send nothing more to a replica that ended a connection of ours; any thread may say so."""
        self.is_open = False
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.abort)

    @property
    def num_begun(self) -> int:
        """Requests that the replica was sent and did not reject; only grows."""
        return self._next_stream - 1 - self.num_rejected

    @property
    def num_open(self) -> int:
        """Streams that still expect frames."""
        return len(self._streams)

    # ---- frames

    def on_frame(  # noqa: PLR0913, C901, PLR0912, PLR0915 - the hot path of a caller: one look-up a frame
        self, kind: int, stream: int, flags: int, status: int, value: int, head: bytes, body: bytes
    ) -> None:
        self.heard = True
        if kind == _DATA:
            call = self._streams.get(stream)
            if not flags & _MORE:
                self._streams.pop(stream, None)
                self._free(stream, value)
            if call is not None:
                call.on_frame(kind, flags, status, head, body)
            elif flags & _EXTERNAL:
                self._acknowledge(stream)
            return
        if kind == _CREDIT:
            if stream:
                call = self._streams.get(stream)
                if call is not None:
                    call.on_frame(kind, flags, value, head, body)
            else:
                if self.budget is not None:
                    self.budget += value
                self._owner.on_room(self)
            return
        if kind == _PONG:
            self.ping_sent_at = 0.0
            if self.is_doubted:
                self._open()
            return
        if kind >= _REJECT:
            if kind == _REJECT:
                self._on_reject(stream)
            else:
                self._on_models(value, body)
            return
        # RESPONSE, RESULT, ERROR: their load counts this request, as ours does until it is freed.
        others = value - self.ongoing
        self.others = others if others > 0 else 0
        if flags & _MORE:
            call = self._streams.get(stream)
            if flags & _FREED:
                self._free(stream, value)
        else:
            call = self._streams.pop(stream, None)
            self._free(stream, value)
        if call is not None:
            call.on_frame(kind, flags, status, head, body)
        elif flags & _EXTERNAL:
            self._acknowledge(stream)

    def _on_reject(self, stream: int) -> None:
        call = self._streams.get(stream)
        self.forget(stream)
        self.num_rejected += 1
        self.budget = 0
        if call is not None:
            self._owner.on_rejected(self, call)

    def ask_models(self) -> None:
        """Ask the replica to tell of its models from now on; a link that is not open asks when it is."""
        if self.is_open:
            self.send(encode(FrameKind.MODELS, 0))

    def _on_models(self, value: int, body: bytes) -> None:
        if value == COMPLETE:
            self.models.clear()
        decode_into(self.models, body)

    def _free(self, stream: int, load: int) -> None:
        """Give back the slot of `stream`; `load` is the replica's at that moment, this request included."""
        holders = self._holders
        if stream in holders:
            holders.remove(stream)
            self.ongoing -= 1
            if self.budget is not None:
                self.budget = None if load < self.max_ongoing else self.budget + 1
            self._owner.on_room(self)

    def _acknowledge(self, stream: int) -> None:
        """Let the replica give back a segment whose call was cancelled meanwhile."""
        self.send(encode(FrameKind.CREDIT, stream, flags=FrameFlag.EXTERNAL))

    # ---- connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.is_doubted:
            # A process that is being killed closes its sockets one by one: its listening one may still take
            # connections, and would take requests into its grave.
            self.send(encode(FrameKind.PING, 0))
        else:
            self._open()

    def _open(self) -> None:
        self.is_doubted = False
        self.is_open = True
        if self._owner.models is not None:
            self.ask_models()
        self._owner.on_room(self)

    def on_lost(self, error: BaseException | None) -> None:
        self.is_open = False
        calls = list(self._streams.values())
        self._streams.clear()
        self._holders.clear()
        self.models.clear()
        self.ongoing = 0
        self.lines.close()
        if calls:
            self._owner.on_calls_lost(self, calls)
        self._owner.on_link_lost(self)

    def on_resumed(self) -> None:
        for call in list(self._streams.values()):
            call.on_frame(_CREDIT, 0, 0, b"", b"")

    def leave(self) -> None:
        """Take nothing new; close once the open calls are done."""
        self.is_leaving = True
        self.lines.leave()
        self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close when the replica is leaving and nothing is open."""
        if self.is_leaving and not self._streams and not self._holders:
            self.close()
