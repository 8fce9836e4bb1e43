"""Deploys what was built to an instance and tells how it went; shared by `trygon deploy` and `trygon start`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import msgspec

from trygon.cli.report import base_url
from trygon.config import read_settings
from trygon.processes.builder import Builder
from trygon.processes.config_build import BuiltConfig, build_config
from trygon.spec.config_file import DeployConfig
from trygon.spec.instance import InstanceRecord
from trygon.spec.plan import removed_names
from trygon.spec.running_options import wanted_timeouts

if TYPE_CHECKING:
    from trygon.client.instance import Instance

__all__ = ["build_file", "deploy_built", "tell_unused_options", "wait_serving"]


def build_file(config: DeployConfig, *, app_dirs: tuple[str, ...], folder: str = "") -> BuiltConfig:
    """Build all applications of a file; call it before the program has threads.

    Raises:
        ConfigError: One of them cannot be built.
    """
    builder = Builder()
    try:
        where = folder or os.path.dirname(os.path.abspath(config.source))
        built = build_config(builder, config, folder=where, app_dirs=app_dirs)
    finally:
        # With Ctrl-C too: it ends a build that is under way.
        builder.close()
    for text in built.warnings:
        click.echo(f"warning: {text}", err=True)
    return built


def deploy_built(joined: Instance, built: BuiltConfig, *, keep_others: bool, origin: str) -> dict[str, int]:
    """Deploy everything in one call; return the revisions.

    Args:
        joined: The instance.
        built: What the file made.
        keep_others: False deletes applications of earlier files that are not among these.
        origin: Who asks, for the history.

    Raises:
        DeployError: It cannot be deployed; nothing was changed.
    """
    removed = () if keep_others else removed_names(joined.goal().applications, built.specs)
    # One application beside others says nothing about how much of all of them there shall be.
    capacity = msgspec.UNSET if keep_others else built.target_capacity
    keep_alive_s = read_settings().http_keep_alive_timeout_s
    revisions = joined.apply(
        built.specs,
        removed=removed,
        origin=origin,
        target_capacity=capacity,
        http_timeouts=wanted_timeouts(built.http_options, keep_alive_s=keep_alive_s),
    )
    for name in removed:
        click.echo(f"application {name!r} is being deleted: the file has it no more")
    if not revisions and not removed:
        click.echo("the file has no applications, and there is nothing to do")
    return revisions


def wait_serving(joined: Instance, revisions: dict[str, int], *, timeout_s: float | None) -> None:
    """Wait until the applications serve, and say where.

    Raises:
        DeployError: One of them failed; the others and what ran before run on.
        TimeoutError: The time was over; the deployment goes on.
    """
    if not revisions:
        return
    joined.wait_running(revisions, timeout_s=timeout_s)
    url = base_url(joined.record)
    applications = joined.status().applications
    width = max(len(name) for name in revisions)
    for name in revisions:
        found = applications.get(name)
        prefix = found.route_prefix if found is not None else None
        where = f"{url}{prefix}" if url and prefix is not None else "through handles only"
        click.echo(f"application {name:{width}}  RUNNING  {where}")


def tell_unused_options(config: DeployConfig, record: InstanceRecord) -> None:
    """Warn when a file asks for another address than the running instance has."""
    for option, found in (("host", record.host), ("port", record.port)):
        wanted = config.http_options.get(option, found)
        if wanted != found:
            click.echo(
                f"warning: {config.source}: http_options.{option} is {wanted!r}, but the instance {record.name!r} "
                f"runs already and has {found!r}; options of HTTP count when an instance is started",
                err=True,
            )
