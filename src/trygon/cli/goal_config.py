"""`trygon config`: what an instance was asked to run, as YAML."""

from __future__ import annotations

from typing import Any

import click

from trygon.cli.joining import connected, instance_option, the_instance
from trygon.config import read_settings
from trygon.errors import ServeError
from trygon.spec.plan import InstanceGoal
from trygon.spec.validation import near_names

__all__ = ["config"]


@click.command(short_help="Show the configuration that is wanted.")
@instance_option
@click.option("-n", "--name", metavar="APP", help="Only this application.")
def config(instance: str | None, name: str | None) -> None:
    r"""Show what the instance was asked to run, as YAML that `trygon deploy` takes.

    Applications of `serve.run` and `trygon run` have no configuration; they are named in a comment.

    \b
    Examples:
      trygon config > serve.yaml
      trygon config -n wine
    """
    record = the_instance(read_settings(), instance)
    with connected(record) as joined:
        goal = joined.goal()
    if name is not None:
        click.echo(_as_yaml(_section(goal, name)), nl=False)
        return
    without = [spec.name for spec in goal.applications if spec.config is None]
    if without:
        click.echo(f"# not from a configuration: {', '.join(without)}")
    sections = [spec.config for spec in goal.applications if spec.config is not None]
    http = {"http_options": {"host": record.host, "port": record.port}} if record.port else {}
    capacity = {} if goal.target_capacity is None else {"target_capacity": goal.target_capacity}
    click.echo(_as_yaml({**http, **capacity, "applications": sections}), nl=False)


def _section(goal: InstanceGoal, name: str) -> dict[str, Any]:
    names = [spec.name for spec in goal.applications]
    for spec in goal.applications:
        if spec.name != name:
            continue
        if spec.config is None:
            raise ServeError(
                f"the application {name!r} was deployed by a program, not from a configuration; "
                "trygon build MODULE:APP writes one"
            )
        return spec.config
    hint = near_names(name, names) or f"; there are {', '.join(map(repr, names)) or 'none'}"
    raise ServeError(f"there is no application {name!r}{hint}")


def _as_yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return text
