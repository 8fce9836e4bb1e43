"""What users asked for, kept on disk, so that a controller can be restarted.

One file, replaced whole: a reader finds the old or the new state, never a part of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import msgspec

from trygon.control.blobs import BlobFolder
from trygon.control.state import Revision
from trygon.errors import InstanceError
from trygon.spec.history import Outcome
from trygon.spec.routing import HttpTimeouts

__all__ = ["DeletedApplication", "FileStore", "PastRevision", "Store", "WantedApplication", "WantedState"]


_VERSION = 1
_MAGIC = b"trygon-state-%d\n" % _VERSION
_ANY_MAGIC = re.compile(rb"trygon-state-(\d{1,6})\n")
_NO_BLOBS: Mapping[str, bytes] = MappingProxyType({})
_DIGEST_BYTES = 32


class PastRevision(msgspec.Struct, frozen=True, kw_only=True):
    """A revision and what became of it; its large definitions are kept as blobs."""

    revision: Revision
    outcome: Outcome = Outcome.DEPLOYING
    error: str = ""


class WantedApplication(msgspec.Struct, frozen=True, kw_only=True):
    """One application as it must survive a restart of the controller."""

    name: str
    target: Revision | None = None
    serving: Revision | None = None
    failure: str = ""
    failed_deployment: str = ""
    deleting: bool = False
    last_revision: int = 0
    #: Oldest first.
    history: tuple[PastRevision, ...] = ()


class DeletedApplication(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an application that is gone, so that it can be brought back."""

    name: str
    #: Wall-clock seconds.
    deleted_wall_s: float
    #: Oldest first.
    history: tuple[PastRevision, ...] = ()


class WantedState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that must survive."""

    applications: tuple[WantedApplication, ...] = ()
    #: Last number given to any application of a name that is gone now.
    last_revisions: dict[str, int] = {}
    #: Longest gone first.
    deleted: tuple[DeletedApplication, ...] = ()
    target_capacity: float | None = None
    http_timeouts: HttpTimeouts | None = None


class Store(Protocol):
    """Keeps the wanted state."""

    def load(self) -> WantedState:
        """Return what was saved last, or an empty state.

        Raises:
            InstanceError: There is something that cannot be read; it was kept aside.
        """
        ...

    def save(self, state: WantedState, blobs: Mapping[str, bytes] = _NO_BLOBS) -> None:
        """Replace what is kept; on return it survives.

        Args:
            state: What is wanted.
            blobs: What it names by digest and is perhaps not kept yet.

        Raises:
            InstanceError: It cannot be kept; what was kept before still is.
        """
        ...

    def read_blob(self, digest: str) -> bytes:
        """Return what a kept state names by its digest.

        Raises:
            InstanceError: It is lost or damaged.
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
        #: Beside the file: definitions and snapshots of code.
        self.blobs = BlobFolder(path.with_suffix(".blobs"), durable=durable)

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
        version = _ANY_MAGIC.match(data)
        if version is not None and int(version[1]) > _VERSION:
            # Nothing is wrong with it, so it stays where it is.
            raise InstanceError(
                f"the state file {str(self._path)!r} is of version {version[1].decode()}, this program reads "
                f"version {_VERSION}; use the Trygon that wrote it, or move the file away to start empty"
            )
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

    def save(self, state: WantedState, blobs: Mapping[str, bytes] = _NO_BLOBS) -> None:
        try:
            # First what is named, then who names it: a crash in between leaves a blob too many, not one too few.
            self.blobs.write(blobs)
            self._write(state)
            self.blobs.keep_only(_digests(state))
        except OSError as error:
            # Of an instance that dies with its program too: a restarted controller would go back to what was before.
            raise InstanceError(
                f"what is wanted cannot be saved in {str(self._path)!r}: {error.strerror}; make room there, "
                "or set TRYGON_HOME to another place; nothing was changed"
            ) from error

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
        with self._old_kept():
            os.replace(new, self._path)
            if self._durable:
                _sync_folder(self._path.parent)

    @contextlib.contextmanager
    def _old_kept(self) -> Iterator[None]:
        """Put the old file back when the disk does not confirm the new one.

        Otherwise a deploy that was refused would come true when the controller is started again.
        """
        old = self._path.with_suffix(".old")
        old.unlink(missing_ok=True)
        had_one = self._path.exists()
        if had_one:
            os.link(self._path, old)
        try:
            yield
        except OSError:
            if had_one:
                os.replace(old, self._path)
            else:
                self._path.unlink(missing_ok=True)
            raise
        old.unlink(missing_ok=True)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
        self.blobs.clear()

    def read_blob(self, digest: str) -> bytes:
        return self.blobs.read(digest)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _digests(state: WantedState) -> set[str]:
    """Return what the state names."""
    found = set()
    for gone in state.deleted:
        for entry in gone.history:
            found.update(_named(entry.revision))
    for application in state.applications:
        past = [entry.revision for entry in application.history]
        for revision in (application.target, application.serving, *past):
            if revision is not None:
                found.update(_named(revision))
    return found - {""}


def _named(revision: Revision) -> set[str]:
    named = {revision.spec.code.snapshot}
    for deployment in revision.spec.deployments:
        named.update((deployment.definition_blob, deployment.snapshot))
    return named
