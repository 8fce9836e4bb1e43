"""`trygon explain`: why an application, a deployment or a replica is as it is."""

from __future__ import annotations

import click
import msgspec

from trygon.cli.completion import complete_application
from trygon.cli.joining import connected, instance_option, the_instance
from trygon.config import read_settings
from trygon.spec.explanation import DeploymentExplanation, Explanation, ReplicaExplanation

__all__ = ["explain"]


@click.command(short_help="Say why something is as it is.")
@click.argument("name", shell_complete=complete_application)
@instance_option
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option(
    "-n",
    "--lines",
    "num_lines",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Decisions to show of each deployment.",
)
def explain(name: str, instance: str | None, num_lines: int, *, as_json: bool) -> None:
    r"""Say why NAME is as it is: what it waits for, its last error, and what was decided.

    NAME is an application, APPLICATION/DEPLOYMENT, or the id or tag of a replica.

    \b
    Examples:
      trygon explain default
      trygon explain default/Greeter --json
      trygon explain kq2m9x4a
    """
    with connected(the_instance(read_settings(), instance)) as joined:
        found = joined.explain(name)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    click.echo("\n".join(_lines(found, num_lines)))


def _lines(found: Explanation, num_lines: int) -> list[str]:
    wanted = f"revision {found.revision}" if found.revision else "no revision is wanted"
    serving = {0: "none serves", found.revision: "which serves"}.get(
        found.serving, f"revision {found.serving} serves"
    )
    lines = [f"application {found.application!r} is {found.status}: {wanted}, {serving}"]
    for deployment in found.deployments:
        lines += ["", *_deployment(deployment, num_lines)]
    return lines


def _deployment(deployment: DeploymentExplanation, num_lines: int) -> list[str]:
    status = f" is {deployment.status}" if deployment.status else ""
    lines = [
        f"deployment {deployment.name!r}{status}: {deployment.ready} of {deployment.wanted} replicas ready"
    ]
    lines += [f"  autoscaling: {line}" for line in deployment.scaling]
    if deployment.waits_for:
        lines.append(f"  waits for: {deployment.waits_for}")
    if deployment.next_try_in_s is not None:
        lines.append(
            f"  next try in {deployment.next_try_in_s:.1f} s, after {deployment.failures} failures in a row"
        )
    lines += [f"  {_replica(replica)}" for replica in deployment.replicas]
    if deployment.last_error:
        lines.append("  last error:")
        lines += [f"    {line}" for line in deployment.last_error.splitlines()]
    left_out = len(deployment.decisions) - num_lines
    if deployment.decisions:
        lines.append("  decisions:" + (f" (and {left_out} before, see --lines)" if left_out > 0 else ""))
    for decision in deployment.decisions[-num_lines:]:
        # A traceback in it is among the errors above, or in the replica's log.
        first, _, more = decision.text.partition("\n")
        lines.append(f"    {_age(decision.age_s):>8} ago  {first}{' ...' if more else ''}")
    return lines


def _replica(replica: ReplicaExplanation) -> str:
    parts = [
        f"replica {replica.replica_id}: {replica.phase} for {_age(replica.age_s)}",
        f"revision {replica.revision}",
        f"process {replica.pid}" if replica.pid else "no process yet",
    ]
    if replica.reason:
        parts.append(replica.reason.splitlines()[-1])
    if replica.killed_in_s is not None:
        parts.append(f"killed in {replica.killed_in_s:.1f} s if it is still there")
    return ", ".join(parts)


def _age(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
