"""`trygon deploy`: make a running instance run what a configuration file says, or add one application."""

from __future__ import annotations

import os
from typing import Any

import click

from trygon.cli.file_options import is_config_file, refuse_single_options
from trygon.cli.joining import connected, instance_option, the_instance
from trygon.cli.run import parse_arguments
from trygon.cli.runtime_env import anchored_runtime_env, runtime_env_options
from trygon.config import read_settings
from trygon.processes.config_build import BuiltConfig, read_config, read_config_file
from trygon.spec.config_file import DeployConfig

__all__ = ["app_dir_option", "deploy"]

app_dir_option = click.option(
    "-d",
    "--app-dir",
    "app_dirs",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Folder that modules are looked for in; may be given several times. "
    "[default: the file's folder, or this one for an import path]",
)


@click.command(short_help="Deploy a configuration file or an application.")
@click.argument("target", metavar="FILE|MODULE:APP")
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1, callback=parse_arguments)
@click.option("--name", help="Name of the application, for an import path. [default: default]")
@click.option("--route-prefix", help="Path that it answers under, for an import path. [default: /]")
@runtime_env_options
@app_dir_option
@instance_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until everything serves.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, 86400),
    metavar="SECONDS",
    help="How long to wait; the deployment goes on. [default: until it serves or fails]",
)
def deploy(**given: Any) -> None:
    r"""Make a running instance run what FILE says: all of it or, when something cannot be built, nothing.

    What did not change keeps its replicas. Applications of an earlier file that are not in this one
    are deleted; those of `serve.run` stay. MODULE:APP adds or updates that one application, and leaves the
    others as they are.

    \b
    Examples:
      trygon deploy serve.yaml
      trygon deploy wine.serve:build model=forest --name wine --route-prefix /wine
      trygon deploy serve.yaml --instance production --no-wait
    """
    record = the_instance(read_settings(), given["instance"])
    from trygon.cli.deploying import deploy_built, tell_unused_options, wait_serving

    is_file = is_config_file(given["target"])
    config, built = _build_file(given) if is_file else _build_one(given)
    with connected(record) as joined:
        tell_unused_options(config, record)
        revisions = deploy_built(
            joined, built, keep_others=not is_file, origin=f"trygon deploy {given['target']}"
        )
        if given["wait"]:
            wait_serving(joined, revisions, timeout_s=given["timeout_s"])
        else:
            for name in revisions:
                click.echo(f"application {name!r} is being deployed; see: trygon status")


def _build_file(given: dict[str, Any]) -> tuple[DeployConfig, BuiltConfig]:
    from trygon.cli.deploying import build_file

    refuse_single_options(
        given["arguments"],
        {
            "--name": given["name"] is not None,
            "--route-prefix": given["route_prefix"] is not None,
            "--runtime-env": given["runtime_env"] is not None,
            "--runtime-env-json": given["runtime_env_json"] is not None,
        },
    )
    config = read_config_file(given["target"])
    return config, build_file(config, app_dirs=given["app_dirs"])


def _build_one(given: dict[str, Any]) -> tuple[DeployConfig, BuiltConfig]:
    """Build one application as a file with nothing else would say it."""
    from trygon.cli.deploying import build_file

    application: dict[str, Any] = {"import_path": given["target"]}
    for name in ("name", "route_prefix"):
        if given[name] is not None:
            application[name] = given[name]
    if given["arguments"]:
        application["args"] = given["arguments"]
    # `trygon config` shows it so that it can be deployed again from anywhere.
    application["runtime_env"] = anchored_runtime_env(given["runtime_env"], given["runtime_env_json"])
    import json

    text = json.dumps({"applications": [application]})
    config = read_config(text, source="the command line")
    folder = os.getcwd()
    return config, build_file(config, app_dirs=given["app_dirs"], folder=folder)
