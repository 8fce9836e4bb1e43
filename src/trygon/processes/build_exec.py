"""A build in the interpreter of a package environment: ``python -P -m trygon.processes.build_exec REQUEST_FD RESULT_FD``.

A build becomes this program when its application needs packages of its own.
"""

from __future__ import annotations

import sys

import msgspec

from trygon.processes.builder import BuildRequest, run_build

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Build what the request says, and write the result."""
    with open(int(arguments[0]), "rb") as file:
        request = msgspec.msgpack.decode(file.read(), type=BuildRequest)
    run_build(request, int(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
