"""The runtime directory of an instance: owner-only, locked while the instance lives, gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

import msgspec

from trygon.errors import InstanceError
from trygon.spec.instance import InstanceRecord

__all__ = ["RunDir", "check_private", "check_socket_path", "make_private_dir", "read_record"]

#: sockaddr_un holds 104 bytes on macOS, 108 on Linux, the final NUL included.
MAX_SOCKET_PATH_BYTES = 103
#: "/" and the longest socket name in the directory.
_LONGEST_NAME = "/controller.sock"
#: What instances put into their runtime directory, beside the lock and the record.
_OWN_SUFFIXES = frozenset((".sock", ".launch", ".page"))


def make_private_dir(path: Path) -> None:
    """Make a directory that only its owner can enter; parents as needed.

    Raises:
        InstanceError: It belongs to somebody else, or cannot be made.
    """
    try:
        for missing in reversed([path, *path.parents]):
            # One by one: mkdir's own parents would be open to everybody.
            if not missing.is_dir():
                missing.mkdir(mode=0o700, exist_ok=True)
        found = path.stat(follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise InstanceError(f"{str(path)!r} is not a directory of yours; choose another place for it")
        if stat.S_IMODE(found.st_mode) != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise InstanceError(f"directory {str(path)!r} cannot be made: {error.strerror}") from None


def check_private(root: Path) -> None:
    """Raise InstanceError when others could put an instance of theirs where ours are looked for."""
    try:
        found = root.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InstanceError(
            f"{str(root)!r} is another user's, or others may write to it, or it is a link; "
            "choose another directory (TRYGON_RUNTIME_DIR), or take their rights away"
        )


def check_socket_path(directory: Path) -> None:
    """Raise InstanceError when sockets in `directory` would have names that are too long."""
    length = len(os.fsencode(str(directory) + _LONGEST_NAME))
    if length > MAX_SOCKET_PATH_BYTES:
        raise InstanceError(
            f"the runtime directory {str(directory)!r} makes socket paths of {length} bytes, "
            f"at most {MAX_SOCKET_PATH_BYTES} work; choose a shorter instance name or runtime directory"
        )


def read_record(directory: Path) -> InstanceRecord | None:
    """Return the instance.json of a directory, or None when there is none (yet)."""
    try:
        return msgspec.json.decode((directory / "instance.json").read_bytes(), type=InstanceRecord)
    except (OSError, msgspec.DecodeError):
        return None


class RunDir:
    """A runtime directory and the lock that says its instance lives.

    The lock is held by an open descriptor, so the kernel lets go of it however the holder ends.
    """

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.lock_fd = lock_fd

    @classmethod
    def acquire(cls, path: Path) -> RunDir | None:
        """Lock a directory, made if need be; None when a living instance holds it."""
        while True:
            make_private_dir(path)
            try:
                fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                # Its last owner is just removing it.
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                if cls.is_alive(path):
                    return None
                # Somebody only looked.
                continue
            try:
                if os.fstat(fd).st_ino == os.stat(path / "lock").st_ino:
                    return cls(path, fd)
            except FileNotFoundError:
                pass
            os.close(fd)

    @staticmethod
    def is_alive(path: Path) -> bool:
        """Return whether a living instance holds a directory."""
        try:
            fd = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # A shared lock: two that look at once must not take each other for the instance.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def clear(self) -> None:
        """Remove what a dead instance left behind, and nothing that no instance makes; the lock stays held."""
        with contextlib.suppress(OSError):
            for entry in self.path.iterdir():
                if entry.name.startswith("instance.json") or entry.suffix in _OWN_SUFFIXES:
                    entry.unlink(missing_ok=True)

    def write_record(self, record: InstanceRecord) -> None:
        """Write instance.json, whole or not at all."""
        new = self.path / "instance.json.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(msgspec.json.encode(record))
        os.replace(new, self.path / "instance.json")

    def remove(self) -> None:
        """Remove the directory, unless something foreign is in it; its lock is let go."""
        self.clear()
        with contextlib.suppress(OSError):
            (self.path / "lock").unlink()
            self.path.rmdir()
        with contextlib.suppress(OSError):
            os.close(self.lock_fd)
