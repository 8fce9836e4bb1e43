"""A replica in a fresh interpreter, for what acts only on a program that is exec'ed: variables, and packages.

``python -P -m trygon.processes.replica_exec MODULE:FUNCTION LAUNCH_FD LIFELINE_FD``, in a child of the supervisor.
"""

from __future__ import annotations

import os
import sys

import msgspec

from trygon.engine.child import apply_code, redirect_output
from trygon.engine.platform import Platform
from trygon.errors import TrygonError
from trygon.processes.image import load_function
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.packages import PackageEnvironment

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Run one replica."""
    function, launch_fd, lifeline_fd = arguments[0], int(arguments[1]), int(arguments[2])
    with open(launch_fd, "rb", closefd=False) as file:
        launch = msgspec.msgpack.decode(file.read(), type=ReplicaLaunch)
    # The descriptors have come through; that their file is to be rotated has not.
    redirect_output(launch.log_path)
    if lifeline_fd >= 0:
        Platform(portable=True).die_with_parent(os.getppid(), lifeline_fd)
    packages = launch.packages
    if packages is not None and not _runs_in(packages):
        os.lseek(launch_fd, 0, os.SEEK_SET)
        _become(packages, arguments)
    os.close(launch_fd)
    apply_code(launch, os.environ)
    if packages is not None:
        _activate()
    load_function(function)(launch)


def _runs_in(packages: PackageEnvironment) -> bool:
    return os.path.basename(sys.prefix).startswith(f"{packages.id}-")


def _become(packages: PackageEnvironment, arguments: list[str]) -> None:
    """Build the environment, which is not in the cache (any more), and run in it."""
    from trygon.client.environments import EnvironmentCache, prepare

    python = None
    try:
        while python is None:
            prepare([packages])
            python = EnvironmentCache.of_user().enter(packages)
    except TrygonError as error:
        # A person reads the end of the log: a traceback would push pip's own words out of it.
        raise SystemExit(str(error)) from None
    os.execv(python, [python, "-P", "-m", "trygon.processes.replica_exec", *arguments])


def _activate() -> None:
    """Let programs that come with the packages be found."""
    os.environ["VIRTUAL_ENV"] = sys.prefix
    os.environ["PATH"] = os.pathsep.join(
        [os.path.join(sys.prefix, "bin"), *filter(None, [os.environ.get("PATH")])]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
