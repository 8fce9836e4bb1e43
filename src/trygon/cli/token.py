"""`trygon token`: the bearer token of an instance's admin port."""

from __future__ import annotations

import sys

import click

from trygon.cli.joining import instance_option, the_instance
from trygon.client.admin_token import token_of
from trygon.config import read_settings

__all__ = ["token"]


@click.command(short_help="Print the token of the admin port.")
@instance_option
def token(instance: str | None) -> None:
    r"""Print the token that requests to the admin port must carry, and nothing else.

    Whoever has it can run code as you: pass it on only to programs that you trust. Where the admin port is
    goes to standard error.

    \b
    Example:
      curl -H "Authorization: Bearer $(trygon token)" http://127.0.0.1:8265/api/serve/applications/
    """
    record = the_instance(read_settings(), instance)
    found = token_of(record)
    if sys.stderr.isatty():
        click.echo(f"admin port of instance {record.name}: {record.admin_url}", err=True)
    click.echo(found)
