"""`trygon history` and `trygon undo`: what an application was, and back to it."""

from __future__ import annotations

import datetime

import click
import msgspec

from trygon.cli.completion import complete_application
from trygon.cli.joining import connected, instance_option, the_instance
from trygon.config import read_settings
from trygon.spec.history import RevisionRecord

__all__ = ["history", "undo"]


@click.command(short_help="Show the revisions of an application.")
@click.argument("application", shell_complete=complete_application)
@instance_option
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def history(application: str, instance: str | None, *, as_json: bool) -> None:
    r"""Show the last revisions of APPLICATION, newest first: when, by what, and what became of them.

    Also of one that was deleted: it can be brought back for a while.

    \b
    Examples:
      trygon history default
    """
    with connected(the_instance(read_settings(), instance)) as joined:
        records = joined.history(application)
    if as_json:
        encoded = msgspec.json.encode({"application": application, "revisions": records})
        click.echo(msgspec.json.format(encoded, indent=2).decode())
        return
    rows = [("REVISION", "OUTCOME", "WHEN", "CODE", "BY"), *map(_row, records)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]))
    if records and records[0].deleted_wall_s:
        click.echo(
            f"deleted at {_shown(records[0].deleted_wall_s)}; trygon undo {application} brings it back"
        )


def _shown(wall_s: float) -> str:
    return f"{datetime.datetime.fromtimestamp(wall_s).astimezone():%Y-%m-%d %H:%M:%S}"


def _row(record: RevisionRecord) -> tuple[str, ...]:
    return (
        str(record.number),
        f"{record.outcome}, serving" if record.is_serving else str(record.outcome),
        _shown(record.deployed_wall_s),
        record.snapshot[:12] or "not kept",
        record.origin,
    )


@click.command(short_help="Go back to an earlier revision.")
@click.argument("application", shell_complete=complete_application)
@instance_option
@click.option(
    "--to", type=click.IntRange(1), metavar="NUMBER", help="Which. [default: the last complete one before]"
)
@click.option("--no-wait", is_flag=True, help="Return before it serves.")
def undo(application: str, instance: str | None, to: int | None, *, no_wait: bool) -> None:
    r"""Deploy what an earlier revision of APPLICATION was, its code included, as a new revision.

    A second undo takes the first one back. One that was deleted is brought back as it was.

    \b
    Examples:
      trygon undo default
      trygon undo default --to 3
    """
    with connected(the_instance(read_settings(), instance)) as joined:
        revisions = joined.undo(application, to=to)
        if not no_wait:
            joined.wait_running(revisions)
    number = revisions[application]
    again = "is being started" if no_wait else "serves"
    click.echo(f"revision {number} of application {application!r} {again}")
