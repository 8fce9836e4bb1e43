"""`trygon logs`: what the processes of an instance wrote."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import click

from trygon.cli.joining import instance_option, the_instance
from trygon.cli.log_view import LogView
from trygon.client.instances import find
from trygon.client.log_tail import LogTail
from trygon.config import read_settings
from trygon.errors import InstanceError

__all__ = ["logs"]

#: Between two looks whether the instance still runs.
_PERIOD_S = 0.5


@click.command(short_help="Show log lines.")
@instance_option
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with new lines, until Ctrl-C or the instance's end."
)
@click.option(
    "-n",
    "--lines",
    "num_lines",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Lines to begin with, of each process.",
)
@click.option(
    "--all", "show_all", is_flag=True, help="Show what controller and supervisor say below warnings too."
)
def logs(instance: str | None, num_lines: int, *, follow: bool, show_all: bool) -> None:
    r"""Show log lines of the instance's processes, and what they print; one process after the other.

    \b
    Examples:
      trygon logs -n 20
      trygon logs --follow
    """
    settings = read_settings()
    try:
        record = the_instance(settings, instance)
    except InstanceError as error:
        kept = settings.home / "instances"
        raise InstanceError(f"{error}; logs of ended instances are in {kept}") from None
    out = sys.stdout
    broken: list[BrokenPipeError] = []

    def write(lines: list[str]) -> None:
        try:
            out.write("".join(f"{line}\n" for line in lines))
            out.flush()
        except BrokenPipeError as error:
            broken.append(error)

    view = LogView(write, is_coloured=out.isatty(), shows_all=show_all)
    tail = LogTail(Path(record.log_dir), view.take, num_last=num_lines)
    tail.start()
    try:
        pause = threading.Event()
        while follow and not broken and find(settings.runtime_dir, record.name) is not None:
            pause.wait(_PERIOD_S)
    finally:
        tail.stop()
    if broken:
        raise broken[0]
