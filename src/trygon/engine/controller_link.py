"""The supervisor's end of its link to the controller: never blocks, and outlives many controllers."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable

import msgspec

from trygon.engine.messages import FromSupervisor, ToSupervisor
from trygon.spec.wire import MessageReader, pack

__all__ = ["ControllerLink"]

_READ_BYTES = 1 << 18

logger = logging.getLogger("trygon.supervisor")


class ControllerLink:
    """One socket pair at a time; what a dead controller did not hear, its successor asks for.

    Args:
        selector: The supervisor's; its keys' data are called when they are ready.
        obey: Gets each message of the controller.
        on_nonsense: Called when the controller sent something unreadable.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        obey: Callable[[ToSupervisor], None],
        on_nonsense: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._obey = obey
        self._on_nonsense = on_nonsense
        self._socket: socket.socket | None = None
        self._reader: MessageReader[ToSupervisor] = MessageReader(ToSupervisor)
        self._unsent = bytearray()

    def open(self) -> socket.socket:
        """Make a new pair; return the controller's end."""
        self.close()
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._reader = MessageReader(ToSupervisor)
        self._selector.register(self._socket, selectors.EVENT_READ, self._wake)
        return theirs

    def close(self) -> None:
        """Let go of the pair, and of what was not sent."""
        link, self._socket = self._socket, None
        self._unsent.clear()
        if link is not None:
            self._selector.unregister(link)
            link.close()

    def detach(self) -> None:
        """Forget the descriptor without closing it, in a forked child."""
        if self._socket is not None:
            self._socket.detach()

    def send(self, message: FromSupervisor) -> None:
        """Send one message, now or when the controller reads; it is lost without a controller."""
        if self._socket is not None:
            self._unsent += pack(message)
            self._flush()

    def _wake(self) -> None:
        self._flush()
        link = self._socket
        if link is None:
            return
        try:
            data = link.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            messages = self._reader.feed(data)
        except (ValueError, msgspec.DecodeError):
            logger.exception("the controller sent something unreadable")
            self.close()
            self._on_nonsense()
            return
        for message in messages:
            self._obey(message)

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            # Its death is told by SIGCHLD.
            self._unsent.clear()
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        if self._selector.get_key(self._socket).events != events:
            self._selector.modify(self._socket, events, self._wake)
