"""One instance to a state directory: two that save into one would lose what the other was asked for."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from trygon.errors import InstanceError

__all__ = ["lock_state"]

_NAME = "lock"
_MOST_BYTES = 200


def lock_state(state_dir: Path, *, owner: str) -> int:
    """Hold a state directory until the returned descriptor, and every copy of it, is closed.

    The runtime directory has a lock too, but with other settings of TRYGON_RUNTIME_DIR two instances
    of one name would not meet there.

    Args:
        state_dir: An existing directory.
        owner: Who holds it, for whoever finds it taken.

    Raises:
        InstanceError: A living instance holds it.
    """
    path = state_dir / _NAME
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.read(fd, _MOST_BYTES).decode(errors="replace").strip() or "another instance"
        os.close(fd)
        raise InstanceError(
            f"the state directory {str(state_dir)!r} is in use by {who}; shut that down, choose another name, "
            "or set TRYGON_HOME to another place"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, owner.encode()[:_MOST_BYTES], 0)
    return fd
