"""Lines: connections that a blocked thread writes to and reads from by itself, without the loop's thread.

A call from a script that waits for each answer costs two wake-ups on a line, and four through the loop
(bench/results/handle.md). A line carries one call at a time, and only the short and simple case: what is not
answered within `WINDOW_S`, is awaited, dropped unread or full elsewhere is handed to the loop, which knows the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from typing import Any, Protocol

from trygon.dataplane.frames import HEADER, HEADER_SIZE, MAX_FRAME_BYTES, FrameKind
from trygon.observability.metrics import REGISTRY

__all__ = ["MAX_REQUEST_BYTES", "WINDOW_S", "Line", "LineCall", "Lines", "LinesOwner"]

#: A thread reads for this long by itself; then the loop takes over, with its pings and its cancelling.
WINDOW_S = 0.05
#: What fits into an empty socket, so that sending never waits for the replica to read.
MAX_REQUEST_BYTES = 32 * 1024
#: Lines to one replica; more threads than that go through the loop.
MAX_LINES = 32

#: Allocated for each answer, so no more than the heap gives without a system call.
_RECEIVE_BYTES = 64 * 1024
#: Looks for an answer before sleeping, about 1.5 us each; halved by each answer that takes longer.
MAX_LOOKS = 80
#: Every so many waits it is tried again.
_SPIN_AGAIN = 64
_NUM_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

_RESULT = int(FrameKind.RESULT)
_ERROR = int(FrameKind.ERROR)
_REJECT = int(FrameKind.REJECT)

_unpack = HEADER.unpack_from
#: struct timeval: two longs on every platform that has one.
_timeval = struct.Struct("@ll")


class LineCall(Protocol):
    """A call that a line can carry: one small request, one answer."""

    #: The line that carries it, or None.
    line: Line | None

    @property
    def is_over(self) -> bool:
        """Whether it has its answer, or needs none any more."""

    def start(self, link: Any, stream: int) -> None:
        """Send the request over `link`."""

    def on_frame(self, kind: int, flags: int, status: int, head: bytes, body: bytes) -> None:
        """Take the RESULT or ERROR frame."""

    def on_lost(self, replica_id: str) -> None:
        """The replica went while it had this request."""


class LinesOwner(Protocol):
    """The link to the same replica: it counts what the loop reads, and takes back what was not taken."""

    loop: asyncio.AbstractEventLoop
    replica_id: str

    def hold_slot(self) -> None:
        """Count a request that the loop waits for."""

    def release_slot(self, *, announce: bool = True) -> None:
        """Give back what `hold_slot` counted; announced, so that a request may take it."""

    def return_call(self, call: Any) -> None:
        """Send a call again that the replica did not take."""

    def lose_call(self, call: Any) -> None:
        """Take a call whose replica went; on the loop's thread."""

    def on_line_answer(self, load: int) -> None:
        """Hear the replica's load, the answered call included; from any thread."""

    def on_line_lost(self) -> None:
        """Take no more calls: the replica ended a connection; heard from any thread."""


class Line:
    """One blocking connection to a replica. Fields are changed under the guard of its `Lines`."""

    __slots__ = (
        "_buffer",
        "_calls",
        "_is_broken",
        "_is_on_loop",
        "_is_read",
        "_lines",
        "_num_looks",
        "_socket",
        "_stream",
        "call",
        "thread",
    )

    def __init__(self, lines: Lines, connection: socket.socket) -> None:
        self._lines = lines
        self._socket = connection
        self._buffer = bytearray()
        #: The call's number on this connection; answers to earlier ones are skipped.
        self._stream = 0
        self._is_broken = False
        #: Waits so far, and how often the next one looks before it sleeps.
        self._calls = 0
        self._num_looks = MAX_LOOKS
        #: True while a thread or the loop reads; nobody else may.
        self._is_read = False
        self._is_on_loop = False
        #: The call under way; None while the line is idle.
        self.call: LineCall | None = None
        #: The thread that made the call.
        self.thread = 0

    # ---- what a call does with its link

    def send(self, frame: bytes) -> None:
        """Send a small frame; a line that cannot send is not used again."""
        try:
            self._socket.sendall(frame)
        except OSError:
            self._is_broken = True

    def cancel(self, stream: int) -> None:
        """End the call of `stream`: its reader hears the end of the connection, and so does the replica."""
        with self._lines.guard:
            if self.call is None or stream != self._stream:
                return
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if self._is_read:
                return
            self._is_read = True
        self._release(keep=False)

    def forget(self, stream: int) -> None:
        """Nothing is counted here."""

    # ---- the thread's side

    def begin_use(self, call: LineCall) -> None:
        """Take `call`; with the guard held."""
        self._stream = self._stream + 1 if self._stream < 0xFFFFFFFF else 1
        self.thread = threading.get_ident()
        self.call = call
        call.line = self

    def start(self, call: LineCall) -> bool:
        """Send `call`; False when that failed and the replica has not got it."""
        call.start(self, self._stream)
        if not self._is_broken:
            return True
        with self._lines.guard:
            if self._is_read:
                return True  # handed to the loop meanwhile, which finds the broken connection
            self._is_read = True
        self._release(keep=False)
        return False

    def read(self, call: LineCall, timeout_s: float) -> bool:
        """Read until `call` has ended; False when time is over, or somebody else reads."""
        with self._lines.guard:
            if self.call is not call or self._is_read:
                return False
            self._is_read = True
        try:
            if timeout_s != WINDOW_S:
                _set_timeout(self._socket, timeout_s)
            try:
                while not self._feed(self._spin() or self._socket.recv(_RECEIVE_BYTES)):
                    pass
            except BlockingIOError:
                return False
            except OSError:
                self._lose()
            return True
        finally:
            with self._lines.guard:
                if self.call is call:
                    self._is_read = False
            if timeout_s != WINDOW_S:
                with contextlib.suppress(OSError):
                    _set_timeout(self._socket, WINDOW_S)

    def _spin(self) -> bytes | None:
        """Look for an answer without sleeping, where the last ones came that fast.

        Two processors that never sleep between the calls of a script halve the time of a call, and take less
        processor time: waking an idle one costs more than the looks (bench/results/handle.md).
        Not while as many threads wait as there are processors: the replica needs one.
        """
        if self._lines.num_used >= _NUM_PROCESSORS:
            return None
        self._calls += 1
        if not self._calls % _SPIN_AGAIN:
            self._num_looks = MAX_LOOKS
        receive = self._socket.recv
        for _ in range(self._num_looks):
            try:
                data = receive(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()
            else:
                self._num_looks = MAX_LOOKS
                return data
        self._num_looks //= 2
        return None

    # ---- the loop's side

    def adopt(self, call: LineCall) -> None:
        """Read on the loop's thread from now on, unless a thread does or the call has ended."""
        with self._lines.guard:
            if self.call is not call or self._is_read:
                return
            self._is_read = self._is_on_loop = True
        self._lines.link.hold_slot()
        self._lines.link.loop.add_reader(self._socket.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._feed(data)

    # ---- both

    def _feed(self, data: bytes) -> bool:
        """Take what arrived; True when the call has ended."""
        if not data:
            self._lose()
            return True
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEADER_SIZE:
            length, stream, kind, flags, status, head_length, value = _unpack(buffer)
            if length > MAX_FRAME_BYTES or head_length > length:
                self._lose()
                return True
            end = HEADER_SIZE + length
            if len(buffer) < end:
                return False
            middle = HEADER_SIZE + head_length
            head, body = bytes(buffer[HEADER_SIZE:middle]), bytes(buffer[middle:end])
            del buffer[:end]
            # Room announced to the connection, or an answer to a call that ended before.
            if stream == self._stream and self._take(kind, flags, status, value, head, body):
                return True
        return False

    def _take(self, kind: int, flags: int, status: int, value: int, head: bytes, body: bytes) -> bool:
        call = self.call
        if call is None:
            return True
        if kind in (_RESULT, _ERROR):
            link = self._lines.link
            link.on_line_answer(value)
            call.on_frame(kind, flags, status, head, body)
            self._release(keep=True)
            return True
        if kind == _REJECT:
            # Closed, so that the replica announces room to those who wait for it.
            self._release(keep=False)
            try:
                self._lines.link.loop.call_soon_threadsafe(self._submit_again, call)
            except RuntimeError:  # the loop is closed: the instance was shut down
                call.on_lost(self._lines.link.replica_id)
            return True
        return False

    def _submit_again(self, call: LineCall) -> None:
        if not call.is_over:
            self._lines.link.return_call(call)

    def _lose(self) -> None:
        call = self.call
        is_unexpected = call is not None and not call.is_over
        if call is not None and is_unexpected:
            # First, or the caller's next call goes to the same dead replica, of which the loop has not heard yet.
            self._lines.close()
            self._lines.link.on_line_lost()
        self._release(keep=False, announce=not is_unexpected)
        if call is not None and is_unexpected:
            link = self._lines.link
            try:
                # The loop knows whether it may be sent elsewhere.
                link.loop.call_soon_threadsafe(link.lose_call, call)
            except RuntimeError:  # the loop is closed: the instance was shut down
                call.on_lost(link.replica_id)

    def _release(self, *, keep: bool, announce: bool = True) -> None:
        """End the call's use of this line; by its reader only."""
        if self._is_on_loop:
            self._is_on_loop = False
            self._lines.link.loop.remove_reader(self._socket.fileno())
            self._lines.link.release_slot(announce=announce)
        self._lines.give_back(self, keep=keep and not self._is_broken)

    def end_use(self, *, close: bool) -> None:
        """Forget the call; with the guard held."""
        if self.call is not None:
            self.call.line = None
            self.call = None
        self._is_read = False
        if close:
            self._socket.close()

    def abort(self) -> None:
        """Fail the call, on the loop's thread: nobody will answer."""
        call = self.call
        if call is not None:
            call.on_lost(self._lines.link.replica_id)
            self.cancel(self._stream)


class Lines:
    """The lines of this process to one replica."""

    __slots__ = ("_idle", "_is_closed", "_used", "address", "guard", "link", "num_calls")

    def __init__(self, link: LinesOwner, address: str) -> None:
        self.link = link
        #: The replica's Unix socket.
        self.address = address
        #: Held for a moment by threads and by the loop.
        self.guard = threading.Lock()
        #: Calls so far; changed with the guard held.
        self.num_calls = 0
        self._idle: list[Line] = []
        self._used: set[Line] = set()
        #: True once the replica leaves or is gone: lines are closed when their call ends.
        self._is_closed = False

    @property
    def num_used(self) -> int:
        """Lines with a call under way."""
        return len(self._used)

    @property
    def is_over(self) -> bool:
        """Whether there will be no more calls."""
        return self._is_closed and not self._used

    def take(self, call: LineCall) -> Line | None:
        """Return a line for `call`; None when there are enough, or no way to connect."""
        with self.guard:
            if self._is_closed or len(self._used) >= MAX_LINES:
                return None
            if self._idle:
                return self._use(self._idle.pop(), call)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.setblocking(False)
            connection.connect(self.address)
        except OSError:
            connection.close()
            return None
        connection.setblocking(True)
        _set_timeout(connection, WINDOW_S)
        with self.guard:
            if not self._is_closed:
                return self._use(Line(self, connection), call)
        connection.close()
        return None

    def _use(self, line: Line, call: LineCall) -> Line:
        self._used.add(line)
        self.num_calls += 1
        if REGISTRY.is_quiet:
            REGISTRY.wake()
        line.begin_use(call)
        return line

    def give_back(self, line: Line, *, keep: bool) -> None:
        """Take a line whose call has ended."""
        with self.guard:
            self._used.discard(line)
            keep = keep and not self._is_closed
            line.end_use(close=not keep)
            if keep:
                self._idle.append(line)

    def leave(self) -> None:
        """Close the idle lines now, the others as soon as their calls end; on the loop's thread.

        A draining replica waits for its callers, so no line may wait for a thread that reads later.
        """
        for line in self.close():
            if line.call is not None:
                line.adopt(line.call)

    def abort(self) -> None:
        """Fail every call and close every line; on the loop's thread, which is about to end."""
        for line in self.close():
            line.abort()

    def close(self) -> list[Line]:
        """Close the idle lines, and the others when their calls end; return those."""
        with self.guard:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for line in idle:
                line.end_use(close=True)
            return list(self._used)


def _set_timeout(connection: socket.socket, timeout_s: float) -> None:
    """Bound each wait in the kernel; a timeout of Python's own costs a system call more each time."""
    micros = max(int(timeout_s * 1e6), 1)  # 0 would be no timeout
    value = _timeval.pack(*divmod(micros, 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
