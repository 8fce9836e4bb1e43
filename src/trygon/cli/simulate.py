"""`trygon simulate`: what autoscaling policies make of a trace of requests, in virtual time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from trygon.cli.terminal import Terminal
from trygon.simulation.fleet import Outcome, Setup, run
from trygon.simulation.policies import NAMES, best_static, make_policy
from trygon.simulation.report import as_json, as_page, as_table, draw
from trygon.simulation.trace import SHAPES, ServiceTime, Trace, generate, read_trace, write_trace

__all__ = ["simulate"]

_FILE = click.Path(dir_okay=False, path_type=Path)


def _service(_ctx: click.Context, _param: click.Parameter, value: str) -> ServiceTime:
    try:
        return ServiceTime.parse(value)
    except ValueError:
        raise click.BadParameter(
            f"wanted seconds such as 0.1, 100ms or 20ms/token, found {value!r}"
        ) from None


def _policies(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names or not set(names) <= set(NAMES):
        raise click.BadParameter(f"wanted some of {', '.join(NAMES)}, separated by commas, found {value!r}")
    return tuple(dict.fromkeys(names))


@click.group(invoke_without_command=True, short_help="Try autoscaling policies on a trace of requests.")
@click.option("--trace", "path", type=_FILE, help="CSV file with one request a line.")
@click.option(
    "--service-time", callback=_service, metavar="TIME", default="0.1", show_default=True,
    help="Seconds of work of a request, where the trace does not say: 0.1, 100ms, 20ms/token.",
)  # fmt: skip
@click.option("--cold-start", type=click.FloatRange(0), default=20.0, show_default=True, help="Seconds from a decision to a replica that serves.")  # fmt: skip
@click.option("--policy", "policies", callback=_policies, metavar="NAMES", default=",".join(NAMES), show_default=True, help="Policies, separated by commas.")  # fmt: skip
@click.option("--slots", type=click.IntRange(1), default=1, show_default=True, help="Requests that a replica works on at once.")  # fmt: skip
@click.option("--min-replicas", type=click.IntRange(0), default=1, show_default=True, help="The fewest.")
@click.option("--max-replicas", type=click.IntRange(1), default=1000, show_default=True, help="The most.")
@click.option("--wait", "wait_s", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="A request that waits longer, in seconds, is late.")  # fmt: skip
@click.option("--quantile", type=click.FloatRange(0.5, 0.9999), default=0.99, show_default=True, help="The share of requests that shall not be late.")  # fmt: skip
@click.option("--warm-up", "warm_up_s", type=click.FloatRange(0), default=300.0, show_default=True, help="Seconds at the beginning that are not scored.")  # fmt: skip
@click.option("--html", "page", type=_FILE, help="Write a page with charts; it needs no network.")
@click.option("--png", "picture", type=_FILE, help="Write a picture; needs trygon[plots].")
@click.option("--json", "is_json", is_flag=True, help="The table as one JSON object.")
@click.pass_context
def simulate(ctx: click.Context, /, path: Path | None, **options: Any) -> None:
    r"""Replay a trace of requests against autoscaling policies, in virtual time.

    The policies are those that the controller runs. The same trace gives the same table.

    The CSV file has a header; its column `timestamp` holds seconds or dates, `service_s` the seconds that a
    request takes. The Azure LLM traces are read as they are. What Ray Serve's defaults, Knative's rule and the
    smallest fleet that would have been enough make of it stands beside the adaptive policy.

    \b
    Examples:
      trygon simulate generate bursts --seed 7 --out bursts.csv
      trygon simulate --trace bursts.csv --cold-start 20 --policy adaptive,ray
      trygon simulate --trace azure_code.csv --service-time 100ms/token --html report.html
    """
    if ctx.invoked_subcommand is not None:
        return
    if path is None:
        raise click.UsageError(
            "wanted a trace; give --trace FILE, or make one with: trygon simulate generate"
        )
    if options["max_replicas"] < options["min_replicas"]:
        raise click.UsageError("--max-replicas must not be below --min-replicas")
    fields = {name: options[name] for name in Setup.__struct_fields__ if name in options}
    setup = Setup(**fields, cold_start_s=options["cold_start"])
    trace = read_trace(path, options["service_time"])
    outcomes = _outcomes(trace, options["policies"], setup)
    if options["page"] is not None:
        _write(options["page"], as_page(trace, outcomes, setup))
    if options["picture"] is not None:
        draw(options["picture"], trace, outcomes, setup)
    if options["is_json"]:
        click.echo(
            msgspec.json.format(msgspec.json.encode(as_json(trace, outcomes, setup)), indent=2).decode()
        )
        return
    if trace.duration_s <= setup.warm_up_s:
        click.echo(
            f"warning: the trace ends after {trace.duration_s:.0f} s, and the first {setup.warm_up_s:g} s are not "
            "scored; see --warm-up",
            err=True,
        )
    click.echo("\n".join(as_table(outcomes, setup)))


def _outcomes(trace: Trace, names: tuple[str, ...], setup: Setup) -> list[Outcome]:
    terminal = Terminal(sys.stderr)
    outcomes = []
    try:
        for name in names:
            progress = _progress(terminal, name, len(trace))
            if name == "static":
                outcomes.append(best_static(trace, setup, progress=progress))
            else:
                outcomes.append(run(trace, make_policy(name, setup), setup, progress=progress))
    finally:
        terminal.status("")
    return outcomes


def _progress(terminal: Terminal, name: str, count: int) -> Callable[[int], None]:
    said = -1

    def progress(come: int) -> None:
        nonlocal said
        percent = come * 100 // max(1, count)
        if percent != said:
            said = percent
            terminal.status(f"{name}: {'#' * (percent // 5):20} {percent} %")

    return progress


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {str(path)!r}: {error}") from None


@simulate.command("generate", short_help="Make a trace.")
@click.argument("shape", type=click.Choice(list(SHAPES)))
@click.option("--out", type=_FILE, required=True, help="The CSV file to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same trace.")
@click.option("--duration", type=click.FloatRange(1), default=3600.0, show_default=True, help="Seconds.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Requests a second, about.")  # fmt: skip
@click.option("--service-time", "service_s", type=click.FloatRange(0, min_open=True), default=0.5, show_default=True, help="Mean seconds of work of a request.")  # fmt: skip
def _generate(shape: str, out: Path, seed: int, duration: float, rate: float, service_s: float) -> None:
    r"""Make a trace of a SHAPE, with arrivals and service times by chance.

    \b
    Examples:
      trygon simulate generate diurnal --seed 3 --rate 50 --out day.csv
    """
    trace = generate(shape, seed=seed, duration_s=duration, rate=rate, service_s=service_s)
    write_trace(out, trace)
    click.echo(f"{len(trace)} requests in {trace.duration_s:.0f} s written to {out}")
