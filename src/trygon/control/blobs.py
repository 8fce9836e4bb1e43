"""What is large and never changes, kept beside the state file under its digest: definitions, snapshots of code.

So saving the state stays small however large the models in the definitions are, and two revisions with the
same code share one copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from trygon.errors import InstanceError
from trygon.spec.application import ApplicationSpec, CodeLocation, DeploymentSpec, ModuleSource

__all__ = ["BlobFolder", "attach_definitions", "detach_code", "detach_definitions"]

#: A definition up to here stays in the state file: most are a name and a few arguments.
_INLINE_BYTES = 16 << 10
#: What a deployment has that may be large; the digest of each has a field beside it.
_PICKLES = ("definition", "policy", "router")


def detach_code(spec: ApplicationSpec) -> tuple[ApplicationSpec, dict[str, bytes]]:
    """Return a specification that names its snapshots by digest, and the snapshots."""
    blobs: dict[str, bytes] = {}
    deployments = []
    for deployment in spec.deployments:
        if deployment.modules:
            digest = _add(blobs, deployment.modules)
            deployment = msgspec.structs.replace(deployment, modules=(), snapshot=digest)
        deployments.append(deployment)
    code: CodeLocation = spec.code
    if code.modules:
        code = msgspec.structs.replace(code, modules=(), snapshot=_add(blobs, code.modules))
    return (
        msgspec.structs.replace(spec, code=code, deployments=tuple(deployments)) if blobs else spec
    ), blobs


def _add(blobs: dict[str, bytes], modules: tuple[ModuleSource, ...]) -> str:
    data = msgspec.msgpack.encode(modules)
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return digest


def detach_definitions(spec: ApplicationSpec) -> tuple[ApplicationSpec, dict[str, bytes]]:
    """Return a specification that names its large definitions by digest, and those definitions."""
    blobs = {}
    deployments = []
    for deployment in spec.deployments:
        changes: dict[str, bytes | str] = {}
        for field in _PICKLES:
            data: bytes = getattr(deployment, field)
            if len(data) > _INLINE_BYTES:
                digest = hashlib.sha256(data).hexdigest()
                blobs[digest] = data
                changes |= {field: b"", f"{field}_blob": digest}
        deployments.append(msgspec.structs.replace(deployment, **changes) if changes else deployment)
    return msgspec.structs.replace(spec, deployments=tuple(deployments)), blobs


def attach_definitions(spec: ApplicationSpec, read: Callable[[str], bytes]) -> ApplicationSpec:
    """Return a specification with all its definitions in it again."""
    return msgspec.structs.replace(
        spec,
        deployments=tuple(
            msgspec.structs.replace(d, **changes) if (changes := _attached(d, read)) else d
            for d in spec.deployments
        ),
    )


def _attached(deployment: DeploymentSpec, read: Callable[[str], bytes]) -> dict[str, bytes | str]:
    """Return what was kept elsewhere."""
    changes: dict[str, bytes | str] = {}
    for field in _PICKLES:
        digest: str = getattr(deployment, f"{field}_blob")
        if digest:
            changes |= {field: read(digest), f"{field}_blob": ""}
    return changes


class BlobFolder:
    """Files named by the SHA-256 of their content, for their owner only.

    Args:
        path: The folder, made when the first blob is written.
        durable: Wait for the disk.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path
        self._durable = durable

    def write(self, blobs: Mapping[str, bytes]) -> None:
        """Write those that are not there yet; OSError when one cannot be."""
        new = {digest: data for digest, data in blobs.items() if not (self.path / digest).exists()}
        if not new:
            return
        try:
            self._write(new)
        except OSError:
            # One that is there counts as kept; the disk did not confirm these.
            for digest in new:
                (self.path / digest).unlink(missing_ok=True)
            raise

    def _write(self, new: Mapping[str, bytes]) -> None:
        self.path.mkdir(mode=0o700, exist_ok=True)
        for digest, data in new.items():
            beside = self.path / f"{digest}.new"
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
            os.replace(beside, self.path / digest)
        if self._durable:
            for folder in (self.path, self.path.parent):
                fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def read(self, digest: str) -> bytes:
        """Return one.

        Raises:
            InstanceError: It is lost or damaged.
        """
        path = self.path / digest
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InstanceError(
                f"{str(path)!r}, a part of the state, cannot be read ({error.strerror}); "
                "put a good copy in its place, or deploy the application again"
            ) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise InstanceError(
                f"{str(path)!r}, a part of the state, is damaged: its content does not fit its name; "
                "put a good copy in its place, or deploy the application again"
            )
        return data

    def keep_only(self, digests: set[str]) -> None:
        """Remove what nothing names any more, and what a crash left half written."""
        try:
            names = {entry.name for entry in os.scandir(self.path)}
        except OSError:
            return
        for name in names - digests:
            # One that cannot be removed now is tried again with the next save.
            with contextlib.suppress(OSError):
                (self.path / name).unlink()

    def clear(self) -> None:
        """Remove everything."""
        self.keep_only(set())
        with contextlib.suppress(OSError):
            self.path.rmdir()
