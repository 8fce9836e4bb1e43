"""The command `trygon`. Ctrl-C is no error at any moment, not even while the command line is being imported."""

from __future__ import annotations

import sys

__all__ = ["main"]

#: What a shell says of a program that Ctrl-C ended.
_INTERRUPTED = 130


def main() -> int:
    """Run the command line of this process and return its exit code."""
    try:
        from trygon.cli.commands import run_command_line

        return run_command_line()
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
