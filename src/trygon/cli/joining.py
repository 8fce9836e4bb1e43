"""Which running instance a command means, and a connection to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from trygon.client.instances import choose
from trygon.config import Settings
from trygon.errors import InstanceError
from trygon.spec.instance import InstanceRecord

if TYPE_CHECKING:
    from trygon.client.instance import Instance

__all__ = ["connected", "instance_option", "the_instance"]

instance_option = click.option(
    "--instance",
    metavar="NAME",
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
