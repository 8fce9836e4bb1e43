"""A request whose kind is of interest, with somebody who looks on how it ends."""

from __future__ import annotations

from typing import Protocol, cast

from trygon.dataplane.fairness import Ticket
from trygon.dataplane.frames import FrameFlag, FrameKind
from trygon.dataplane.links import Call, ReplicaLink, Withdrawable
from trygon.dataplane.messages import ErrorKind, Evidence

__all__ = ["Tracked", "Tracker"]

_MORE = int(FrameFlag.MORE)
_CREDIT = int(FrameKind.CREDIT)
_ERROR = int(FrameKind.ERROR)
#: The replica did not say what became of the request.
_UNDONE = (int(ErrorKind.CANCELLED), int(ErrorKind.TIMEOUT), int(ErrorKind.UNAVAILABLE))


class Tracker(Protocol):
    """Who looks on."""

    def host(self, tracked: Tracked, link: ReplicaLink) -> None:
        """Hear where a replay goes."""

    def leave(self, tracked: Tracked) -> None:
        """Hear that the answer has begun, so that others may have its replica."""

    def end(self, tracked: Tracked, *, is_done: bool) -> None:
        """Hear that a request is over; done, it clears its kind."""

    def withdraw(self, tracked: Tracked) -> None:
        """Forget a request that its caller gave up."""


class Tracked:
    """Stands between a call and its link while its kind is of interest, to see how it ends.

    Towards the link it is the call, towards the call it is the link and the place where it waits.
    """

    __slots__ = (
        "call",
        "desk",
        "is_replay",
        "is_trial",
        "kind",
        "link",
        "replica_id",
        "until",
        "was_trial",
        "where",
    )

    def __init__(self, desk: Tracker, call: Call, kind: bytes) -> None:
        self.desk = desk
        self.call = call
        self.kind = kind
        self.link: ReplicaLink | None = None
        #: Where it waits outside of the desk.
        self.where: Withdrawable | None = None
        #: Sent for the second time; never for a third.
        self.is_replay = False
        #: Under way as the only one of a suspect kind, its answer not begun.
        self.is_trial = False
        self.was_trial = False
        #: Of a replay: who died with it, and how long it may wait for a second replica.
        self.replica_id = ""
        self.until = 0.0

    # ---- links.Call

    @property
    def model_id(self) -> str:
        return self.call.model_id

    @property
    def session_id(self) -> str:
        return self.call.session_id

    def question(self) -> tuple[bool, bytes, bytes]:
        return self.call.question()

    @property
    def ticket(self) -> Ticket:
        return self.call.ticket

    @property
    def due(self) -> float:
        return self.call.due

    def start(self, link: ReplicaLink, stream: int) -> None:
        self.link = link
        if self.is_replay:
            self.desk.host(self, link)
        # What a call asks of its link is answered below.
        self.call.start(cast("ReplicaLink", self), stream)

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        self.call.on_frame(kind, flags, status, head, body)
        if kind == _CREDIT:
            return
        if flags & _MORE:
            self.desk.leave(self)
        else:
            self.desk.end(self, is_done=kind != _ERROR or status not in _UNDONE)

    def on_moved(self, pool: Withdrawable) -> None:
        self.link = None
        self.where = pool
        self.call.on_moved(self)

    def on_lost(self, replica_id: str) -> None:
        self.call.on_lost(replica_id)
        self.desk.end(self, is_done=False)

    def on_refused(self, error: Exception) -> None:
        self.call.on_refused(error)
        self.desk.end(self, is_done=False)

    def evidence(self) -> Evidence | None:
        return self.call.evidence()

    # ---- what the call asks of its link

    @property
    def is_paused(self) -> bool:
        return self.link is not None and self.link.is_paused

    def send(self, frame: bytes) -> None:
        if self.link is not None:
            self.link.send(frame)

    def cancel(self, stream: int) -> None:
        if self.link is not None:
            self.link.cancel(stream)
        self.desk.end(self, is_done=False)

    def forget(self, stream: int) -> None:
        if self.link is not None:
            self.link.forget(stream)
        self.desk.end(self, is_done=False)

    # ---- Withdrawable

    def withdraw(self, call: Call) -> None:
        del call  # its own
        self.desk.withdraw(self)
        if self.where is not None:
            self.where.withdraw(self)
