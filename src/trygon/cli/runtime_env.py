"""The runtime environment given on a command line: variables, folders and packages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from trygon.errors import TrygonError
from trygon.spec.packages import PackageEnvironment

__all__ = ["RuntimeEnv", "anchored_runtime_env", "read_runtime_env", "runtime_env_options"]


def runtime_env_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options --runtime-env and --runtime-env-json."""
    as_json = click.option("--runtime-env-json", metavar="JSON", help="The same as JSON text.")
    as_file = click.option(
        "--runtime-env",
        metavar="FILE",
        help="YAML file with env_vars, pip, py_modules and working_dir for the replicas.",
    )
    return as_file(as_json(command))


class RuntimeEnv(NamedTuple):
    """What a replica's process gets: variables, and where it stands (None: where the command was given)."""

    env_vars: dict[str, str]
    working_dir: str | None
    #: Looked in first for modules.
    py_modules: tuple[str, ...] = ()
    packages: PackageEnvironment | None = None


def read_runtime_env(path: str | None, text: str | None, working_dir: str | None) -> RuntimeEnv:
    """Read --runtime-env (a file), --runtime-env-json and --working-dir, which wins over the others.

    Raises:
        click.UsageError: One of them cannot be read, or asks for what cannot be provided.
    """
    found = _given(path, text)
    if working_dir is not None:
        found["working_dir"] = working_dir
    return _checked(found, _option(text)) if found else RuntimeEnv({}, None)


def _option(text: str | None) -> str:
    return "--runtime-env-json" if text is not None else "--runtime-env"


def anchored_runtime_env(path: str | None, text: str | None) -> dict[str, Any]:
    """Return what was given as a configuration file says it, with paths that mean the same everywhere.

    Raises:
        click.UsageError: It cannot be read, or asks for what cannot be provided.
    """
    found = read_runtime_env(path, text, None)
    env: dict[str, Any] = {"working_dir": found.working_dir or os.getcwd()}
    if found.env_vars:
        env["env_vars"] = found.env_vars
    if found.py_modules:
        env["py_modules"] = list(found.py_modules)
    if found.packages is not None:
        from trygon.graph.plain_options import plain_pip

        env["pip"] = plain_pip(found.packages)
    return env


def _given(path: str | None, text: str | None) -> dict[str, Any]:
    if path is not None and text is not None:
        raise click.UsageError("give --runtime-env or --runtime-env-json, not both")
    found: Any = {}
    option = _option(text)
    if path is not None:
        found = _read_file(path)
    elif text is not None:
        import json

        try:
            found = json.loads(text)
        except ValueError as error:
            raise click.UsageError(f"{option} is not JSON: {error}; found {text!r}") from None
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise click.UsageError(
            f"{option} wants a mapping such as {{'env_vars': {{'NAME': 'value'}}}}, found {found!r}"
        )
    return found


def _read_file(path: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--runtime-env: {path!r} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise click.UsageError(f"--runtime-env: {path!r} is not YAML: {error}") from None


def _checked(found: dict[str, Any], option: str) -> RuntimeEnv:
    # The same rules as for the runtime_env of a deployment; loaded only when there is something to check.
    from trygon.client.completion import existing
    from trygon.client.requirements import complete_packages
    from trygon.graph.resources import check_actor_options, read_actor_options

    try:
        options = read_actor_options(check_actor_options({"runtime_env": found}))
    except TrygonError as error:
        raise click.UsageError(f"{option}: {error}") from None
    working_dir = options.working_dir
    if working_dir is not None:
        working_dir = os.path.abspath(os.path.expanduser(working_dir))
        if not os.path.isdir(working_dir):
            raise click.UsageError(
                f"the working directory {working_dir!r} is not there; make it or name another"
            )
    # Paths in it start from where the command is typed, as its others do.
    try:
        modules = tuple(existing(path, os.getcwd(), is_module=True) for path in options.py_modules)
        packages = complete_packages(options.packages, os.getcwd()) if options.packages else None
    except TrygonError as error:
        raise click.UsageError(f"{option}: {error}") from None
    return RuntimeEnv(options.env_vars, working_dir, modules, packages)
