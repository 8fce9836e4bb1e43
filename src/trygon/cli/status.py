"""`trygon status`: what runs, for people and as JSON."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec

from trygon.cli.completion import complete_application
from trygon.cli.joining import application_named, connected, instance_option, the_instance
from trygon.cli.report import base_url
from trygon.client.instances import list_running
from trygon.clock import RealClock
from trygon.config import Settings, read_settings
from trygon.errors import InstanceError
from trygon.processes.traffic import busy_status
from trygon.spec.instance import InstanceRecord
from trygon.spec.status import ApplicationStatus, InstanceStatus, ProxyStatus, Traffic

__all__ = ["status"]

_PERIOD_S = 1.0
_COLOURS = {
    "RUNNING": "green",
    "HEALTHY": "green",
    "DEPLOY_FAILED": "red",
    "UNHEALTHY": "red",
}
_CLEAR = "\x1b[H\x1b[2J"
#: Exit status when something that was asked for is not RUNNING.
_NOT_RUNNING = 3

_Found = list[tuple[InstanceRecord, InstanceStatus]]


@click.command(short_help="Show what runs.")
@click.argument("application", required=False, shell_complete=complete_application)
@instance_option
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, as one JSON object.")
@click.option("-w", "--watch", is_flag=True, help="Show it again whenever it changes, until Ctrl-C.")
def status(application: str | None, instance: str | None, *, as_json: bool, watch: bool) -> int:
    r"""Show applications, deployments and replicas of the running instances, or of one APPLICATION.

    Exits with 0 when every application that is shown is RUNNING, with 3 when one is not.

    \b
    Examples:
      trygon status
      trygon status default --watch
      trygon status --json | jq '.instances[].applications'
    """
    settings = read_settings()
    if application is None:
        instance = instance or settings.instance
    else:
        # One name may be in use in several instances.
        instance = the_instance(settings, instance).name
    if watch:
        return _watch(lambda: _ask(settings, instance, application), as_json=as_json)
    found = _ask(settings, instance, application)
    _show(found, as_json=as_json, watch=False)
    return _exit_code(found)


def _watch(ask: Callable[[], _Found], *, as_json: bool) -> int:
    """Show every change until Ctrl-C, which ends between two looks; a second one ends at once."""
    interrupts: queue.SimpleQueue[int] = queue.SimpleQueue()

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler)
        interrupts.put(number)

    signal.signal(signal.SIGINT, interrupt)
    shown: _Found | None = None
    while True:
        found = ask()
        # Programs that read JSON wait for what changes, people look at the rates too.
        news = [(record, _without_traffic(state)) for record, state in found] if as_json else found
        if news != shown:
            shown = news
            _show(found, as_json=as_json, watch=True)
        with contextlib.suppress(queue.Empty):
            return 128 + interrupts.get(timeout=_PERIOD_S)


def _ask(settings: Settings, name: str | None, application: str | None) -> _Found:
    records = [] if name else list_running(settings.runtime_dir)
    found = []
    for record in records or [the_instance(settings, name)]:
        try:
            with connected(record) as joined:
                found.append((record, _narrowed(busy_status(joined), application)))
        except InstanceError:
            # Of several, one may just have ended.
            if len(records) < 2:
                raise
    return found


def _narrowed(state: InstanceStatus, application: str | None) -> InstanceStatus:
    if application is None:
        return state
    name = application_named(application, list(state.applications))
    return msgspec.structs.replace(state, applications={name: state.applications[name]})


def _without_traffic(state: InstanceStatus) -> InstanceStatus:
    replace = msgspec.structs.replace
    applications = {}
    for name, application in state.applications.items():
        quiet = {key: replace(one, traffic=None) for key, one in application.deployments.items()}
        applications[name] = replace(application, deployments=quiet, traffic=None)
    return replace(state, applications=applications)


def _exit_code(found: _Found) -> int:
    running = all(
        application.status is ApplicationStatus.RUNNING
        for _, state in found
        for application in state.applications.values()
    )
    return 0 if running else _NOT_RUNNING


def _show(found: _Found, *, as_json: bool, watch: bool) -> None:
    if as_json:
        # Who watches reads a line for each change.
        click.echo(_as_json(found, indent=0 if watch else 2))
        return
    text = _as_text(found)
    click.echo(_CLEAR + text if watch and sys.stdout.isatty() else text)


def _as_json(found: _Found, *, indent: int) -> str:
    instances: list[dict[str, Any]] = []
    for record, state in found:
        instances.append(
            {**msgspec.to_builtins(record), "url": base_url(record), **msgspec.to_builtins(state)}
        )
    encoded = msgspec.json.encode({"instances": instances})
    return (msgspec.json.format(encoded, indent=indent) if indent else encoded).decode()


def _as_text(found: _Found) -> str:
    return "\n\n".join(_describe(record, state) for record, state in found)


def _describe(record: InstanceRecord, state: InstanceStatus) -> str:
    up_s = max(0.0, RealClock().wall() - record.started_wall_s)
    kind = "ends with its program" if record.attached else "detached"
    head = f"{click.style(f'instance {record.name}', bold=True)}: {base_url(record) or 'no HTTP'}"
    capacity = "" if state.target_capacity is None else f", target_capacity {state.target_capacity:g} %"
    lines = [f"{head}, process {record.pid}, up {_duration(up_s)}, {kind}{capacity}"]
    rows: list[tuple[str, str, str]] = []
    messages = [
        f"ingress {slot} is {proxy}"
        for slot, proxy in sorted(state.proxies.items())
        if proxy is not ProxyStatus.HEALTHY
    ]
    for name, application in state.applications.items():
        route = application.route_prefix or "no route"
        revision = f", revision {application.revision}" if application.revision else ""
        rows.append((name, str(application.status), route + revision + _busy(application.traffic)))
        for deployment, overview in application.deployments.items():
            counts = ", ".join(f"{count} {kind.lower()}" for kind, count in overview.replica_states.items())
            shown = (counts or "no replicas") + _busy(overview.traffic)
            rows.append((f"  {deployment}", str(overview.status), shown))
        if application.message:
            messages.append(f"{name}: {application.message}")
    if not rows:
        return "\n".join([lines[0], "  no applications", *messages])
    name_width = max(len(row[0]) for row in rows)
    word_width = max(len(row[1]) for row in rows)
    for name, word, rest in rows:
        shown = click.style(f"{word:{word_width}}", fg=_COLOURS.get(word, "yellow"))
        lines.append(f"  {name:{name_width}}  {shown}  {rest}")
    return "\n".join([*lines, *messages])


def _busy(traffic: Traffic | None) -> str:
    """Return ", 12.3/s, p50 1.2 ms, p95 ..." of the last minute; empty when nothing came."""
    if traffic is None or traffic.p50_ms is None or traffic.p95_ms is None or traffic.p99_ms is None:
        return ""
    errors = f", {traffic.errors_per_s:.3g} errors/s" if traffic.errors_per_s else ""
    return (
        f", {traffic.requests_per_s:.3g} requests/s{errors}, "
        f"p50 {traffic.p50_ms:.3g} ms, p95 {traffic.p95_ms:.3g} ms, p99 {traffic.p99_ms:.3g} ms"
    )


def _duration(seconds: float) -> str:
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if days >= 1:
        return f"{days:.0f} d {hours % 24:.0f} h"
    if hours >= 1:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"
