"""`trygon logs`: what the processes of an instance wrote."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import click
import msgspec

from trygon.cli.completion import complete_application
from trygon.cli.joining import connected, instance_option, the_instance
from trygon.cli.log_errors import Failures
from trygon.cli.log_filter import LogFilter, Selection, parse_since
from trygon.cli.log_view import LogView
from trygon.client.instances import find
from trygon.client.log_tail import LogTail, source_of
from trygon.clock import RealClock
from trygon.config import Settings, read_settings
from trygon.errors import InstanceError
from trygon.spec.instance import InstanceRecord

__all__ = ["logs"]

#: Between two looks whether the instance still runs.
_PERIOD_S = 0.5
#: Where a time decides, all lines are looked at.
_ALL_LINES = 1 << 40
_LOG_FILE = re.compile(r"(.+\.log)(?:\.(\d+))?")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@click.command(short_help="Show log lines.")
@click.argument(
    "target", required=False, metavar="[APPLICATION[/DEPLOYMENT]]", shell_complete=complete_application
)
@instance_option
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with new lines, until Ctrl-C or the instance's shutdown."
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
@click.option("--replica", metavar="ID", help="Only this replica, by its id or tag.")
@click.option("--level", type=click.Choice(_LEVELS, case_sensitive=False), help="Only from this level on.")
@click.option("--since", metavar="SPAN", help="Only lines of the last 90s, 10m, 2h or 1d.")
@click.option("--system", is_flag=True, help="Only ingress, controller and supervisor, and all they say.")
@click.option(
    "--errors", is_flag=True, help="Each distinct traceback once, with its count; the first at the top."
)
@click.option("--json", "as_json", is_flag=True, help="With --errors: the same as one JSON object.")
@click.option(
    "--all", "show_all", is_flag=True, help="Show what controller and supervisor say below warnings too."
)
def logs(  # noqa: PLR0913 - one for each option
    target: str | None,
    instance: str | None,
    num_lines: int,
    replica: str | None,
    level: str | None,
    since: str | None,
    *,
    follow: bool,
    system: bool,
    errors: bool,
    as_json: bool,
    show_all: bool,
) -> None:
    r"""Show log lines of the instance's processes, and what they print; one process after the other.

    \b
    Examples:
      trygon logs -n 20
      trygon logs default/Greeter --follow --level WARNING
      trygon logs --since 10m --system
      trygon logs --errors
    """
    settings = read_settings()
    record = _record(settings, instance)
    selection = Selection(
        target=target, replica=replica, system=system, others=_applications(record) if target else []
    )
    try:
        since_wall_s = RealClock().wall() - parse_since(since) if since is not None else None
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from None
    if errors:
        _show_errors(record, selection, as_json=as_json)
        return
    out = _Output()
    view = LogView(out.write, is_coloured=sys.stdout.isatty(), shows_all=show_all or system)
    lines = LogFilter(view.take, selection, level=level.upper() if level else None, since_wall_s=since_wall_s)
    tail = LogTail(Path(record.log_dir), lines.take, num_last=num_lines if since is None else _ALL_LINES)
    tail.start()
    try:
        pause = threading.Event()
        while follow and out.broken is None and _goes_on(settings, record):
            pause.wait(_PERIOD_S)
    finally:
        tail.stop()
    if out.broken is not None:
        raise out.broken


def _record(settings: Settings, instance: str | None) -> InstanceRecord:
    try:
        return the_instance(settings, instance)
    except InstanceError as error:
        kept = settings.home / "instances"
        raise InstanceError(f"{error}; logs of ended instances are in {kept}") from None


def _applications(record: InstanceRecord) -> list[str]:
    try:
        with connected(record) as joined:
            return list(joined.status().applications)
    except InstanceError:
        # It is just ending; its files are there all the same.
        return []


def _goes_on(settings: Settings, record: InstanceRecord) -> bool:
    """Return whether more lines may come: a detached instance that was not shut down is started again."""
    if find(settings.runtime_dir, record.name) is not None:
        return True
    return not record.attached and (Path(record.state_dir) / "state.bin").exists()


class _Output:
    """Standard output, whose reader may go away."""

    def __init__(self) -> None:
        self.broken: BrokenPipeError | None = None

    def write(self, lines: list[str]) -> None:
        try:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.flush()
        except BrokenPipeError as error:
            self.broken = error


def _show_errors(record: InstanceRecord, selection: Selection, *, as_json: bool) -> None:
    failures = Failures()
    for path in _oldest_first(Path(record.log_dir)):
        match = _LOG_FILE.fullmatch(path.name)
        source = source_of(match[1]) if match is not None else None
        if source is None or not selection.has(source):
            continue
        try:
            with path.open(errors="replace") as file:
                failures.read(source, (line.rstrip("\n") for line in file))
        except OSError:
            # It was rotated away in this moment.
            continue
    found = failures.in_order()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"failures": found}), indent=2).decode())
        return
    for failure in found:
        times = "once" if failure.count == 1 else f"{failure.count} times"
        when = f"first {failure.first_seen or 'at an unknown time'}"
        click.secho(f"{times}, {when}, in {', '.join(failure.processes)}", bold=True)
        click.echo(f"{failure.traceback}\n")
    if not found:
        click.echo("no traceback in the logs")


def _oldest_first(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if _LOG_FILE.fullmatch(path.name)), key=_age, reverse=True
    )


def _age(path: Path) -> int:
    match = _LOG_FILE.fullmatch(path.name)
    return int(match[2] or 0) if match is not None else 0
