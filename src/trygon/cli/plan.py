"""`trygon plan`: what `trygon deploy` would do."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from trygon.cli.deploy import app_dir_option
from trygon.cli.file_options import is_config_file
from trygon.cli.joining import connected, instance_option, the_instance
from trygon.config import read_settings
from trygon.processes.config_build import read_config_file
from trygon.spec.plan import ApplicationChange, Change, DeployPlan, Need, plan_changes, removed_names

__all__ = ["plan"]

_WORDS = {
    Change.UNCHANGED: "stays as it is",
    Change.ADJUSTED: "adjusted, no replica is touched",
    Change.RECONFIGURED: "reconfigured in place",
    Change.RESIZED: "resized",
    Change.ROLLED: "rolled: new replicas replace the old ones",
    Change.ADDED: "added",
    Change.DELETED: "deleted",
}
_MARKS = {Change.UNCHANGED: " ", Change.ADDED: "+", Change.DELETED: "-"}
_COLOURS = {Change.ADDED: "green", Change.DELETED: "red", Change.ROLLED: "yellow"}
_CHANGES = 2


class _UsageError(click.UsageError):
    """2 says that there are changes, so wrong usage says 1."""

    exit_code = 1


class _PlanCommand(click.Command):
    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise _UsageError(error.format_message(), error.ctx) from None


@click.command(
    cls=_PlanCommand,
    short_help="Show what a deploy would do.",
    epilog="Exit codes: 0 there is nothing to do; 2 there are changes; 1 an error.",
)
@click.argument("path", metavar="FILE")
@app_dir_option
@instance_option
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def plan(path: str, app_dirs: tuple[str, ...], instance: str | None, *, as_json: bool) -> int:
    r"""Show what `trygon deploy FILE` would add, delete, roll, resize or reconfigure, and what it needs.

    It builds the applications as a deploy does, and changes nothing.

    \b
    Examples:
      trygon plan serve.yaml
      trygon plan serve.yaml --json | jq '.applications[] | select(.change == "ROLLED")'
    """
    from trygon.cli.deploying import build_file

    if not is_config_file(path):
        raise _UsageError(f"wanted a file that ends with .yaml, .yml or .json, found {path!r}")
    record = the_instance(read_settings(), instance)
    built = build_file(read_config_file(path), app_dirs=app_dirs)
    with connected(record) as joined:
        goal = joined.goal()
    found = plan_changes(goal, built.specs, removed_names(goal.applications, built.specs))
    click.echo(_as_json(found) if as_json else _as_text(found))
    return _CHANGES if found.has_changes else 0


def _as_json(found: DeployPlan) -> str:
    value = {"has_changes": found.has_changes, **msgspec.to_builtins(found)}
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _as_text(found: DeployPlan) -> str:
    lines = [line for application in found.applications for line in _told(application)]
    lines += [_need(need) for need in found.needs]
    lines.append("there are changes" if found.has_changes else "nothing to do")
    return "\n".join(lines)


def _told(application: ApplicationChange) -> list[str]:
    lines = [_line("", f"application {application.name}", application.change, application.details)]
    return lines + [_line("  ", d.name, d.change, d.details) for d in application.deployments]


def _line(indent: str, name: str, change: Change, details: tuple[str, ...]) -> str:
    word = click.style(_WORDS[change], fg=_COLOURS.get(change))
    more = f" ({'; '.join(details)})" if details else ""
    return f"{_MARKS.get(change, '~')} {indent}{name}: {word}{more}"


def _need(need: Need) -> str:
    text = f"needs {need.needed:g} {need.resource}, the machine has {need.available:g}"
    if need.fits and need.needed > need.available:
        return f"{text}: CPUs are shared, so it starts all the same"
    return text if need.fits else f"{text}: not enough, a deploy would be refused"
