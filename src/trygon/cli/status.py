"""`trygon status`: what runs, for people and as JSON."""

from __future__ import annotations

import sys
import threading
from typing import Any

import click
import msgspec

from trygon.cli.joining import connected, instance_option, the_instance
from trygon.cli.report import base_url
from trygon.client.instances import list_running
from trygon.clock import RealClock
from trygon.config import Settings, read_settings
from trygon.errors import InstanceError
from trygon.spec.instance import InstanceRecord
from trygon.spec.status import InstanceStatus

__all__ = ["status"]

_PERIOD_S = 1.0
_COLOURS = {
    "RUNNING": "green",
    "HEALTHY": "green",
    "DEPLOY_FAILED": "red",
    "UNHEALTHY": "red",
}
_CLEAR = "\x1b[H\x1b[2J"


@click.command(short_help="Show what runs.")
@instance_option
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, as one JSON object.")
@click.option("-w", "--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def status(instance: str | None, *, as_json: bool, watch: bool) -> None:
    r"""Show applications, deployments and replicas of the running instances.

    \b
    Examples:
      trygon status
      trygon status --json | jq '.instances[].applications'
    """
    settings = read_settings()
    pause = threading.Event()
    while True:
        found = _ask(settings, instance)
        text = _as_json(found) if as_json else _as_text(found)
        if watch and not as_json and sys.stdout.isatty():
            text = _CLEAR + text
        click.echo(text)
        if not watch:
            return
        pause.wait(_PERIOD_S)


def _ask(settings: Settings, name: str | None) -> list[tuple[InstanceRecord, InstanceStatus]]:
    named = name or settings.instance
    records = [] if named else list_running(settings.runtime_dir)
    found = []
    for record in records or [the_instance(settings, named)]:
        try:
            with connected(record) as joined:
                found.append((record, joined.status()))
        except InstanceError:
            # Of several, one may just have ended.
            if len(records) < 2:
                raise
    return found


def _as_json(found: list[tuple[InstanceRecord, InstanceStatus]]) -> str:
    instances: list[dict[str, Any]] = []
    for record, state in found:
        instances.append(
            {**msgspec.to_builtins(record), "url": base_url(record), **msgspec.to_builtins(state)}
        )
    return msgspec.json.format(msgspec.json.encode({"instances": instances}), indent=2).decode()


def _as_text(found: list[tuple[InstanceRecord, InstanceStatus]]) -> str:
    return "\n\n".join(_describe(record, state) for record, state in found)


def _describe(record: InstanceRecord, state: InstanceStatus) -> str:
    up_s = max(0.0, RealClock().wall() - record.started_wall_s)
    kind = "ends with its program" if record.attached else "detached"
    head = f"{click.style(f'instance {record.name}', bold=True)}: {base_url(record) or 'no HTTP'}"
    lines = [f"{head}, process {record.pid}, up {_duration(up_s)}, {kind}"]
    rows: list[tuple[str, str, str]] = []
    messages = []
    for name, application in state.applications.items():
        rows.append((name, str(application.status), application.route_prefix or "no route"))
        for deployment, overview in application.deployments.items():
            counts = ", ".join(f"{count} {kind.lower()}" for kind, count in overview.replica_states.items())
            rows.append((f"  {deployment}", str(overview.status), counts or "no replicas"))
        if application.message:
            messages.append(f"{name}: {application.message}")
    if not rows:
        return f"{lines[0]}\n  no applications"
    name_width = max(len(row[0]) for row in rows)
    word_width = max(len(row[1]) for row in rows)
    for name, word, rest in rows:
        shown = click.style(f"{word:{word_width}}", fg=_COLOURS.get(word, "yellow"))
        lines.append(f"  {name:{name_width}}  {shown}  {rest}")
    return "\n".join([*lines, *messages])


def _duration(seconds: float) -> str:
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if days >= 1:
        return f"{days:.0f} d {hours % 24:.0f} h"
    if hours >= 1:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"
