"""The bearer token of an instance's admin port: a file that only its owner can read.

Whoever reads it can run code as this user, so it is never logged, never in an environment, never in an argument.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from trygon.errors import InstanceError
from trygon.spec.admin import TOKEN_FILE
from trygon.spec.instance import InstanceRecord

__all__ = ["ensure_token", "read_token", "token_of"]

#: 256 bits in base64; what is shorter was cut off, or written by somebody else.
_TOKEN_BYTES = 32
_LEAST_CHARACTERS = 32
_MOST_CHARACTERS = 512


def ensure_token(state_dir: Path) -> Path:
    """Make the token of an instance, unless a good one is there; return its file.

    It stays over restarts, so that what was set up with it goes on. One that others could read is replaced.
    """
    path = state_dir / TOKEN_FILE
    try:
        read_token(path)
    except InstanceError:
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
        os.replace(new, path)
    return path


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        InstanceError: It is missing, malformed, somebody else's, or open to others.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InstanceError(
            f"the admin token cannot be read from {str(path)!r}: {error.strerror}; "
            "it is made when an instance with an admin port starts"
        ) from None
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise InstanceError(
                f"the file {str(path)!r} with the admin token must be your own and open to nobody else (0600), "
                f"found mode {stat.S_IMODE(found.st_mode):04o} of user {found.st_uid}; remove it and start again"
            )
        text = file.read(_MOST_CHARACTERS).decode("ascii", "replace").strip()
    if len(text) < _LEAST_CHARACTERS or not text.isascii() or not text.isprintable() or " " in text:
        raise InstanceError(
            f"the file {str(path)!r} holds no admin token ({len(text)} characters); remove it and start again"
        )
    return text


def token_of(record: InstanceRecord) -> str:
    """Return the admin token of a running instance.

    Raises:
        InstanceError: It has no admin port, or its token cannot be read.
    """
    if not record.admin_url:
        raise InstanceError(
            f"the instance {record.name!r} has no admin port; start it with one (TRYGON_ADMIN_PORT)"
        )
    return read_token(Path(record.state_dir) / TOKEN_FILE)
