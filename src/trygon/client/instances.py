"""Finds running instances of this user; what dead ones left behind is cleaned away.

The order in which `serve.run` chooses: the instance named by argument, the one named by the environment,
the user's single running one; else the caller starts its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import threading
from pathlib import Path

import msgspec

from trygon.client.rundir import RunDir, check_private, read_record
from trygon.errors import InstanceError
from trygon.spec.instance import InstanceConfig, InstanceRecord

__all__ = ["check_name", "choose", "find", "list_running", "new_name", "place", "prune_states"]

#: An instance that was locked but has no record yet is being started; this is how long that may take.
_STARTING_S = 5.0
_STEP_S = 0.01
_UNNAMED = re.compile(r"i-[0-9a-f]{8}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}")
#: Logs of unnamed instances that are kept for a look after the fact.
_KEPT_STATES = 20


def new_name() -> str:
    """Return a name for an instance that nobody named."""
    return f"i-{os.urandom(4).hex()}"


def check_name(name: str) -> None:
    """Raise InstanceError unless `name` can name an instance: it becomes part of paths."""
    if _NAME.fullmatch(name) is None:
        raise InstanceError(
            f"{name!r} cannot name an instance: 1 to 24 letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit"
        )


def place(config: InstanceConfig, name: str) -> InstanceConfig:
    """Return the configuration of an instance called `name` below the roots that `config` names.

    Raises:
        InstanceError: No instance can have that name.
    """
    check_name(name)
    return msgspec.structs.replace(
        config,
        name=name,
        runtime_dir=os.path.join(config.runtime_dir, name),
        state_dir=os.path.join(config.state_dir, name),
    )


def prune_states(state_root: Path, runtime_root: Path, *, keep: int = _KEPT_STATES) -> None:
    """Remove the logs of unnamed instances that ended, but for the newest ones.

    Nobody can join or restore an unnamed instance by chance, and every script makes one.
    """
    try:
        names = [entry.name for entry in state_root.iterdir() if _UNNAMED.fullmatch(entry.name)]
    except OSError:
        return
    ended = []
    for name in names:
        if not RunDir.is_alive(runtime_root / name):
            with contextlib.suppress(OSError):
                ended.append(((state_root / name).stat().st_mtime, name))
    for _, name in sorted(ended, reverse=True)[keep:]:
        shutil.rmtree(state_root / name, ignore_errors=True)


def list_running(runtime_root: Path) -> list[InstanceRecord]:
    """Return the instances that live, by name; directories of dead ones are removed.

    Raises:
        InstanceError: Somebody else could have put an instance there, to be given code and to send some.
    """
    check_private(runtime_root)
    records = []
    try:
        paths = sorted(path for path in runtime_root.iterdir() if _NAME.fullmatch(path.name))
    except OSError:
        return []
    for path in paths:
        record = _look(path)
        if record is not None:
            records.append(record)
    return records


def find(runtime_root: Path, name: str) -> InstanceRecord | None:
    """Return a living instance by name, waiting a moment for one that is being started; None without one.

    Raises:
        InstanceError: No instance can have that name.
    """
    check_name(name)
    check_private(runtime_root)
    path = runtime_root / name
    pause = threading.Event()
    for _ in range(int(_STARTING_S / _STEP_S)):
        record = _look(path)
        if record is not None or not RunDir.is_alive(path):
            return record
        pause.wait(_STEP_S)
    return None


def choose(runtime_root: Path, *, name: str | None = None) -> InstanceRecord | None:
    """Return the instance to join: the named one, or the single running one; None if there is none.

    Raises:
        InstanceError: Several run and none was named.
    """
    if name is not None:
        return find(runtime_root, name)
    running = list_running(runtime_root)
    if len(running) > 1:
        names = ", ".join(repr(record.name) for record in running)
        raise InstanceError(f"{len(running)} instances are running: {names}; say which one you mean")
    return running[0] if running else None


def _look(path: Path) -> InstanceRecord | None:
    """Return the record of a living instance; remove what is left of a dead one."""
    if RunDir.is_alive(path):
        return read_record(path)
    if _is_run_dir(path):
        left = RunDir.acquire(path)
        if left is not None:
            left.remove()
    return None


def _is_run_dir(path: Path) -> bool:
    """Whether a directory is what a dead instance left behind; anything else is not ours to clean."""
    try:
        folder, lock = path.lstat(), (path / "lock").lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(folder.st_mode)
        and stat.S_IMODE(folder.st_mode) == 0o700
        and stat.S_ISREG(lock.st_mode)
        and lock.st_size == 0
    )
