"""A replica in a fresh interpreter, for what acts only on a program that is exec'ed: variables, and packages.

``python -P -m trygon.processes.replica_exec MODULE:FUNCTION LAUNCH_FD LIFELINE_FD``, in a child of the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

import msgspec

from trygon.config import read_settings
from trygon.engine.child import apply_code, redirect_output
from trygon.engine.platform import Platform
from trygon.errors import TrygonError
from trygon.observability.log_file import Rotation, use_rotation
from trygon.processes.image import load_function
from trygon.spec.control import Hello, ReplicaPreparing
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.packages import PackageEnvironment
from trygon.spec.wire import pack

__all__ = ["main"]

#: For the controller to take one line; a busy one need not hear it.
_TELL_S = 1.0


def main(arguments: list[str]) -> None:
    """Run one replica."""
    function, launch_fd, lifeline_fd = arguments[0], int(arguments[1]), int(arguments[2])
    with open(launch_fd, "rb", closefd=False) as file:
        launch = msgspec.msgpack.decode(file.read(), type=ReplicaLaunch)
    # The descriptors have come through; that their file is to be rotated has not.
    settings = read_settings()
    use_rotation(Rotation(settings.rotation_max_bytes, settings.rotation_backup_count))
    redirect_output(launch.log_path)
    if lifeline_fd >= 0:
        Platform(portable=True).die_with_parent(os.getppid(), lifeline_fd)
    packages = launch.packages
    if packages is not None and not _runs_in(packages):
        os.lseek(launch_fd, 0, os.SEEK_SET)
        _become(launch, packages, arguments)
    os.close(launch_fd)
    apply_code(launch, os.environ)
    if packages is not None:
        _activate()
    load_function(function)(launch)


def _runs_in(packages: PackageEnvironment) -> bool:
    return os.path.basename(sys.prefix).startswith(f"{packages.id}-")


def _become(launch: ReplicaLaunch, packages: PackageEnvironment, arguments: list[str]) -> None:
    """Build the environment, which is not in the cache (any more), and run in it."""
    from trygon.client.environments import EnvironmentCache, prepare

    python = None
    try:
        while python is None:
            prepare([packages], lambda text: _tell(launch, text))
            python = EnvironmentCache.of_user().enter(packages)
    except TrygonError as error:
        # A person reads the end of the log: a traceback would push pip's own words out of it.
        raise SystemExit(str(error)) from None
    os.execv(python, [python, "-P", "-m", "trygon.processes.replica_exec", *arguments])


def _tell(launch: ReplicaLaunch, text: str) -> None:
    """Say in the log, and to the controller if it is there, what this replica waits for."""
    print(text, flush=True)  # noqa: T201 - a person reads the log
    if not text.endswith("..."):
        return
    about = ReplicaPreparing(replica_id=launch.replica_id, doing=text.removesuffix(" ..."))
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_TELL_S)
        link.connect(launch.controller_address)
        # As a watchdog does: a connection that is sent nothing, and whose end means nothing.
        hello = Hello(role="watchdog", peer_id=launch.replica_id, pid=os.getpid())
        link.sendall(pack(hello) + pack(about))


def _activate() -> None:
    """Let programs that come with the packages be found."""
    os.environ["VIRTUAL_ENV"] = sys.prefix
    os.environ["PATH"] = os.pathsep.join(
        [os.path.join(sys.prefix, "bin"), *filter(None, [os.environ.get("PATH")])]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
