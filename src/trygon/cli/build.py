"""`trygon build`: writes a configuration file for applications."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from trygon.errors import ConfigError, ServeError
from trygon.graph.plain_options import plain_options
from trygon.processes.builder import Builder, BuildRequest
from trygon.spec.application import ApplicationSpec

__all__ = ["build"]

_HEAD = """\
# Written by `trygon build`; serve it with `trygon run FILE`, or `trygon deploy FILE` to a running instance.
# `trygon plan FILE` shows what a deploy would change. Every option left out here is at its default.

# Where the instance listens; it counts when the instance is started.
"""


@click.command(short_help="Write a configuration file for applications.")
@click.argument("targets", metavar="[NAME=]MODULE:APP...", nargs=-1, required=True)
@click.option(
    "-d",
    "--app-dir",
    default=".",
    show_default=True,
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Folder that modules are looked for in.",
)
@click.option("-o", "--output", metavar="FILE", help="Where to write it. [default: the terminal]")
def build(targets: tuple[str, ...], app_dir: str, output: str | None) -> None:
    r"""Write a configuration file for applications: their names, routes, and every option that the code gives.

    Without a NAME they are called app1, app2 and so on. One application is served at /, several each at
    a slash and its name.

    \b
    Examples:
      trygon build converter:app -o serve.yaml
      trygon build wine=shop.wine:app beer=shop.beer:app -o serve.yaml
    """
    named = _named(targets)
    builder = Builder()
    try:
        sections = [
            _section(_built(builder, name, path, app_dir), is_only=len(named) == 1)
            for name, path in named.items()
        ]
    finally:
        builder.close()
    text = _as_yaml(sections, _working_dir(app_dir, output))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{output}: the file cannot be written: {error.strerror}; choose another place"
        ) from None
    click.echo(f"{output} is written; serve it with: trygon run {output}")


def _named(targets: tuple[str, ...]) -> dict[str, str]:
    named: dict[str, str] = {}
    for number, target in enumerate(targets, 1):
        name, equals, path = target.partition("=")
        if not equals:
            name, path = f"app{number}", target
        if not name or not path:
            raise click.UsageError(f"wanted MODULE:APP or NAME=MODULE:APP, found {target!r}")
        if name in named:
            raise click.UsageError(f"two applications are called {name!r}; give each its own NAME=MODULE:APP")
        named[name] = path
    return named


def _built(builder: Builder, name: str, path: str, app_dir: str) -> ApplicationSpec:
    request = BuildRequest(import_path=path, name=name, sys_path=(app_dir,), working_dir=app_dir)
    result = builder.begin(request).wait()
    if result.spec is None:
        raise ServeError(f"{result.error}\n{result.traceback}".rstrip())
    return result.spec


def _section(spec: ApplicationSpec, *, is_only: bool) -> dict[str, Any]:
    deployments = [
        {"name": deployment.name, **plain_options(deployment.options)}
        # The one that takes the requests first.
        for deployment in reversed(spec.deployments)
    ]
    section = {"name": spec.name, "route_prefix": "/" if is_only else f"/{spec.name}"}
    return {**section, "import_path": spec.import_path, "deployments": deployments}


def _working_dir(app_dir: str, output: str | None) -> str | None:
    """Return where modules are, as seen from the file; None when they lie beside it."""
    folder = os.path.dirname(os.path.abspath(output)) if output is not None else os.getcwd()
    return None if os.path.samefile(folder, app_dir) else os.path.relpath(app_dir, folder)


def _as_yaml(sections: list[dict[str, Any]], working_dir: str | None) -> str:
    import yaml

    def dump(value: Any) -> str:
        text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
        return text

    parts = [_HEAD, dump({"http_options": {"host": "127.0.0.1", "port": 8000}}), "\napplications:\n"]
    for section in sections:
        if working_dir is not None:
            section = {**section, "runtime_env": {"working_dir": working_dir}}
        parts.append(f"# {section['import_path']}\n{dump([section])}")
    return "".join(parts)
