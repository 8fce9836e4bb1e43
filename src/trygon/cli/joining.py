"""Which running instance a command means, and a connection to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from trygon.client.instances import choose, list_running
from trygon.config import Settings, read_settings
from trygon.errors import InstanceError, ServeError
from trygon.spec.instance import InstanceRecord
from trygon.spec.validation import near_names

if TYPE_CHECKING:
    from trygon.client.instance import Instance

__all__ = ["application_named", "connected", "instance_option", "the_instance"]


def _complete_instance(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the running instances whose names begin so."""
    try:
        return [r.name for r in list_running(read_settings().runtime_dir) if r.name.startswith(incomplete)]
    except InstanceError:
        # Nobody reads an error while typing.
        return []


instance_option = click.option(
    "--instance",
    metavar="NAME",
    shell_complete=_complete_instance,
    help="Which instance. [default: TRYGON_INSTANCE, or the only one that runs]",
)


def the_instance(settings: Settings, name: str | None) -> InstanceRecord:
    """Return the record of the instance that is meant.

    Raises:
        InstanceError: There is none, or several run and none was named.
    """
    name = name or settings.instance
    try:
        record = choose(settings.runtime_dir, name=name)
    except InstanceError as error:
        raise InstanceError(f"{error} with --instance NAME") from None
    if record is not None:
        return record
    which = f"no instance {name!r} is running" if name else "no instance is running"
    raise InstanceError(f"{which} (looked in {settings.runtime_dir}); start one with: trygon start")


def application_named(name: str, running: list[str]) -> str:
    """Return `name` when there is an application of that name.

    Raises:
        ServeError: There is none; the text has the nearest name, or all of them.
    """
    if name not in running:
        hint = near_names(name, running) or f"; running are: {', '.join(map(repr, running)) or 'none'}"
        raise ServeError(f"there is no application {name!r}{hint}")
    return name


@contextlib.contextmanager
def connected(record: InstanceRecord) -> Iterator[Instance]:
    """Connect to an instance for a while."""
    # Its event loop is most of what a short command would wait for, so only those that need it load it.
    from trygon.client.instance import Instance

    instance = Instance(record)
    try:
        yield instance
    finally:
        instance.close()
