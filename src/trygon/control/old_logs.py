"""Removes the log files of replicas that are gone, so that a crash loop does not fill the disk."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Container
from pathlib import Path

__all__ = ["KEPT_LOGS", "prune_logs"]

#: Logs of dead replicas that are kept of each deployment: enough to compare a crash with those before it.
KEPT_LOGS = 20


def prune_logs(dead: Path, alive: Container[str], *, keep: int = KEPT_LOGS) -> None:
    """Remove all but the newest logs of dead replicas of one deployment.

    Args:
        dead: The log of a replica that has just ended; its siblings are named as it is, but for the tag.
        alive: Paths that stay whatever their age.
        keep: How many of the others stay, that of `dead` among them.
    """
    prefix, _, tag = dead.stem.rpartition("_")
    if not prefix:
        return
    # A log that was rotated has a number behind its suffix.
    name = re.compile(rf"{re.escape(prefix)}_[a-z0-9]{{{len(tag)}}}\.log(\.\d+)?")
    found = []
    with contextlib.suppress(OSError), os.scandir(dead.parent) as entries:
        for entry in entries:
            is_sibling = name.fullmatch(entry.name) is not None
            # That of the newly dead stays, though it may have written its last line long ago.
            if is_sibling and entry.path != str(dead) and re.sub(r"\.\d+$", "", entry.path) not in alive:
                found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
    for _, path in sorted(found, reverse=True)[keep - 1 :]:
        with contextlib.suppress(OSError):
            os.unlink(path)
