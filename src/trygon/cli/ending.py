"""`trygon delete` and `trygon shutdown`."""

from __future__ import annotations

import sys

import click

from trygon.cli.completion import complete_application
from trygon.cli.joining import application_named, connected, instance_option, the_instance
from trygon.config import read_settings
from trygon.errors import InstanceError

__all__ = ["delete", "shutdown"]


@click.command(short_help="Delete an application.")
@click.argument("name", shell_complete=complete_application)
@instance_option
@click.option("--no-wait", is_flag=True, help="Return before its replicas have finished.")
def delete(name: str, instance: str | None, *, no_wait: bool) -> None:
    r"""Delete the application NAME; its replicas finish what they have begun.

    \b
    Examples:
      trygon delete default
    """
    with connected(the_instance(read_settings(), instance)) as joined:
        application_named(name, list(joined.status().applications))
        joined.delete(name, wait=not no_wait)
    click.echo(
        f"application {name!r} is deleted" if not no_wait else f"application {name!r} is being deleted"
    )


@click.command(short_help="End an instance and everything in it.")
@instance_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="What requests in work get to finish. [default: graceful_shutdown_timeout_s of each deployment]",
)
def shutdown(instance: str | None, grace_s: float | None, *, yes: bool) -> None:
    r"""End an instance: its applications finish what they have begun, then nothing of it is left.

    \b
    Examples:
      trygon shutdown
      trygon shutdown -y --instance production --grace 5
    """
    record = the_instance(read_settings(), instance)
    with connected(record) as joined:
        names = ", ".join(joined.status().applications) or "none"
        if not yes:
            if not sys.stdin.isatty():
                raise InstanceError(
                    f"nobody can be asked whether to shut down {record.name!r}; say so with -y"
                )
            click.confirm(f"Shut down the instance {record.name!r} (applications: {names})?", abort=True)
        joined.shutdown(grace_s=grace_s, timeout_s=3600.0 if grace_s is None else grace_s + 10.0)
    click.echo(f"the instance {record.name!r} is shut down")
