"""`trygon doctor`: what would not work here, and the remedy."""

from __future__ import annotations

import click
import msgspec

from trygon.cli.diagnosis import Finding, Verdict, diagnose

__all__ = ["doctor"]

_COLOURS = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.BROKEN: "red"}


@click.command(short_help="Say what would not work here.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The HTTP port that is wanted.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def doctor(port: int, *, as_json: bool) -> int:
    r"""Look at this machine and the settings: what would not work here, and the remedy.

    Exits with 1 when something is broken.

    \b
    Examples:
      trygon doctor
      trygon doctor --port 80 --json
    """
    from trygon.processes.machine import look_at_machine

    findings = diagnose(look_at_machine(port))
    is_broken = any(finding.verdict is Verdict.BROKEN for finding in findings)
    if as_json:
        encoded = msgspec.json.encode({"is_broken": is_broken, "findings": findings})
        click.echo(msgspec.json.format(encoded, indent=2).decode())
    else:
        _show(findings)
    return 1 if is_broken else 0


def _show(findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        verdict = click.style(f"{finding.verdict:6}", fg=_COLOURS[finding.verdict])
        click.echo(f"{verdict}  {finding.check:{width}}  {finding.found}")
        if finding.remedy:
            click.echo(f"{'':6}  {'':{width}}  {finding.remedy}")
