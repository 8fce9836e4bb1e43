"""A replica in a fresh interpreter, for environment variables that act only on a program that is exec'ed.

``python -P -m trygon.processes.replica_exec MODULE:FUNCTION LAUNCH_FD LIFELINE_FD``, in a child of the supervisor.
"""

from __future__ import annotations

import os
import sys

import msgspec

from trygon.config import read_settings
from trygon.engine.child import apply_code, redirect_output
from trygon.engine.platform import Platform
from trygon.observability.log_file import Rotation, use_rotation
from trygon.processes.image import load_function
from trygon.spec.launch import ReplicaLaunch

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Run one replica."""
    function, launch_fd, lifeline_fd = arguments[0], int(arguments[1]), int(arguments[2])
    with open(launch_fd, "rb") as file:
        launch = msgspec.msgpack.decode(file.read(), type=ReplicaLaunch)
    # The descriptors have come through; that their file is to be rotated has not.
    settings = read_settings()
    use_rotation(Rotation(settings.rotation_max_bytes, settings.rotation_backup_count))
    redirect_output(launch.log_path)
    if lifeline_fd >= 0:
        Platform(portable=True).die_with_parent(os.getppid(), lifeline_fd)
    apply_code(launch, os.environ)
    load_function(function)(launch)


if __name__ == "__main__":
    main(sys.argv[1:])
