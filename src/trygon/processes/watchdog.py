"""A thread that speaks for its replica while user code blocks the loop, or a long import holds it up.

It has a connection to the controller of its own, for the loop's is as blocked as everything else on the loop.
It only tells: the controller decides. It cannot run while native code holds the interpreter lock, and says
nothing then; the controller looks at the process's use of the processor before it calls that frozen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import site
import socket
import sys
import sysconfig
import threading
from types import FrameType

import msgspec

from trygon.clock import Clock, RealClock
from trygon.spec.control import FromPeer, Hello, ReplicaAlive
from trygon.spec.wire import pack

__all__ = ["Watchdog", "place_of"]

#: Between two beats. Twenty replicas cost the controller twenty messages of a hundred bytes a second.
BEAT_S = 1.0
#: A loop that comes round later than this is blocked. Shorter pauses are a garbage collection or a busy machine.
BLOCKED_AFTER_S = 1.5
#: The controller's socket is local: it takes a beat at once, or it is full because nobody reads it.
_SEND_S = 0.5


class Watchdog:
    """Watches the running loop from a thread of its own, from `start` to `stop`.

    Args:
        address: Unix socket path of the controller.
        replica_id: Who is watched.
        clock: Tells the time.
        beat_s: Between two beats.
    """

    def __init__(
        self, address: str, replica_id: str, *, clock: Clock | None = None, beat_s: float = BEAT_S
    ) -> None:
        self._address = address
        self._replica_id = replica_id
        self._clock = clock or RealClock()
        self._beat_s = beat_s
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._stopping = threading.Event()
        self._link: socket.socket | None = None
        #: When the loop was asked to come round, which it has not done yet; 0.0 when it owes nothing.
        self._asked_at = 0.0
        self._thread = threading.Thread(target=self._run, name="trygon-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it is a daemon, so nobody need wait for it."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; False when the time is over first."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._beat_s):
                try:
                    self._tell(self._measure())
                except RuntimeError:
                    # The loop is closed: the process is on its way out.
                    return
                except OSError:
                    # The controller is being restarted, or does not read; the next beat finds out.
                    self._drop()
        finally:
            self._drop()

    def _measure(self) -> ReplicaAlive:
        now = self._clock.monotonic()
        if not self._asked_at:
            self._asked_at = now
            self._loop.call_soon_threadsafe(self._answer)
            return ReplicaAlive(replica_id=self._replica_id)
        blocked_s = now - self._asked_at
        if blocked_s < BLOCKED_AFTER_S:
            return ReplicaAlive(replica_id=self._replica_id)
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the only way to another thread
        where = place_of(frame) if frame is not None else ""
        # A frame holds its locals, which may be a request's arguments.
        del frame
        return ReplicaAlive(replica_id=self._replica_id, blocked_s=blocked_s, where=where)

    def _answer(self) -> None:
        self._asked_at = 0.0

    def _tell(self, message: FromPeer) -> None:
        if self._link is None:
            self._link = self._connect()
        self._link.sendall(pack(message))

    def _connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(_SEND_S)
            link.connect(self._address)
            link.sendall(pack(Hello(role="watchdog", peer_id=self._replica_id, pid=os.getpid())))
        except OSError:
            link.close()
            raise
        return link

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(OSError):
                link.close()


class _Folders(msgspec.Struct, frozen=True):
    """Where code lies that is not the user's, the likeliest to be first."""

    ours: str
    library: tuple[str, ...]
    packages: tuple[str, ...]


def _folders() -> _Folders:
    paths = sysconfig.get_paths()
    return _Folders(
        ours=os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
        library=tuple({paths["stdlib"] + os.sep, paths["platstdlib"] + os.sep}),
        packages=tuple(
            folder + os.sep for folder in {paths["purelib"], paths["platlib"], *site.getsitepackages()}
        ),
    )


def place_of(frame: FrameType) -> str:
    """Return where a thread is, as "file:line": in the user's code if any of it is there.

    The innermost frame of a file that is neither ours, nor the standard library's, nor of an installed package;
    else the innermost of an installed package, which may be the user's; else the innermost one.
    """
    folders = _folders()
    best, best_rank = frame, 3
    current: FrameType | None = frame
    while current is not None:
        rank = _rank(current.f_code.co_filename, folders)
        if rank < best_rank:
            best, best_rank = current, rank
        current = current.f_back
    return f"{_short(best.f_code.co_filename)}:{best.f_lineno}"


def _rank(file_name: str, folders: _Folders) -> int:
    if file_name.startswith((folders.ours, "<frozen")):
        return 2
    # First, for it lies within the standard library's folder.
    if file_name.startswith(folders.packages):
        return 1
    return 2 if file_name.startswith(folders.library) else 0


def _short(file_name: str) -> str:
    """A file below the working directory is named as the user would."""
    with contextlib.suppress(OSError):
        folder = os.getcwd() + os.sep
        if file_name.startswith(folder):
            return file_name[len(folder) :]
    return file_name
