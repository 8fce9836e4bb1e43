"""What users asked for, kept on disk, so that a controller can be restarted.

One file, replaced whole: a reader finds the old or the new state, never a part of one.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Protocol

import msgspec

from trygon.control.state import Revision
from trygon.errors import InstanceError

__all__ = ["FileStore", "Store", "WantedApplication", "WantedState"]

logger = logging.getLogger("trygon.control")

_MAGIC = b"trygon-state-1\n"
_DIGEST_BYTES = 32


class WantedApplication(msgspec.Struct, frozen=True, kw_only=True):
    """One application as it must survive a restart of the controller."""

    name: str
    target: Revision | None = None
    serving: Revision | None = None
    failure: str = ""
    failed_deployment: str = ""
    deleting: bool = False
    last_revision: int = 0


class WantedState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that must survive."""

    applications: tuple[WantedApplication, ...] = ()
    #: Last number given to any application of a name that is gone now.
    last_revisions: dict[str, int] = {}


class Store(Protocol):
    """Keeps the wanted state."""

    def load(self) -> WantedState:
        """Return what was saved last, or an empty state.

        Raises:
            InstanceError: There is something that cannot be read; it was kept aside.
        """
        ...

    def save(self, state: WantedState) -> None:
        """Replace what is kept; on return it survives.

        Raises:
            InstanceError: It cannot be kept; what was kept before still is.
        """
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class FileStore:
    """A store in one checksummed file.

    Args:
        path: The file; its folder must exist and be the owner's alone.
        durable: Wait for the disk, so that the state survives a power cut and not only a crash.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._path = path
        self._durable = durable

    def load(self) -> WantedState:
        aside = self._path.with_suffix(".corrupt")
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            if aside.exists():
                # Only a person may decide that what was lost need not come back.
                raise InstanceError(
                    f"the state of this instance was unreadable and lies in {str(aside)!r}; "
                    "remove that file to start empty, or put a good copy in its place"
                ) from None
            return WantedState()
        head = len(_MAGIC) + _DIGEST_BYTES
        body = data[head:]
        try:
            if data[: len(_MAGIC)] != _MAGIC:
                raise ValueError("it does not begin as a state file does")
            if hashlib.sha256(body).digest() != data[len(_MAGIC) : head]:
                raise ValueError("its checksum is wrong")
            return msgspec.msgpack.decode(body, type=WantedState)
        except (ValueError, msgspec.DecodeError) as error:
            os.replace(self._path, aside)
            raise InstanceError(
                f"the state file {str(self._path)!r} cannot be read ({error}); it was kept as {str(aside)!r}: "
                "remove that file to start empty, or put a good copy in its place"
            ) from None

    def save(self, state: WantedState) -> None:
        try:
            self._write(state)
        except OSError as error:
            if self._durable:
                raise InstanceError(
                    f"what is wanted cannot be saved in {str(self._path)!r}: {error.strerror}; make room there, "
                    "or set TRYGON_HOME to another place; nothing was changed"
                ) from error
            # Nobody restores an instance that dies with its program; only a killed controller would miss it.
            logger.warning("the state cannot be saved in %r: %s", str(self._path), error.strerror)

    def _write(self, state: WantedState) -> None:
        body = msgspec.msgpack.encode(state)
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(_MAGIC)
            file.write(hashlib.sha256(body).digest())
            file.write(body)
            file.flush()
            if self._durable:
                os.fsync(file.fileno())
        os.replace(new, self._path)
        if self._durable:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
