"""What `trygon run` tells: progress, the summary of addresses, each failure once, and the end."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from trygon.cli.log_view import LogView
from trygon.cli.terminal import Terminal
from trygon.clock import Clock
from trygon.spec.application import ApplicationSpec
from trygon.spec.instance import InstanceRecord
from trygon.spec.status import ApplicationStatusOverview, DeploymentStatus

if TYPE_CHECKING:
    from trygon.cli.work import Outcome

__all__ = ["Report", "base_url"]

#: A status line that would go at once is not worth its flicker.
_STATUS_AFTER_S = 0.3
#: Without a terminal, a start that takes this long gets a line.
_LINE_AFTER_S = 2.0
_READY = re.compile(r"(\d+) of (\d+) replicas")
_ERROR_FOLLOWS = "the last error was:\n"


class Report:
    """Speaks for one `trygon run`; used by its main thread.

    Attributes:
        logs: Shows log lines, from any thread.

    Args:
        terminal: Where to.
        what: The import path that is served.
        clock: For how long things take.
    """

    def __init__(self, terminal: Terminal, what: str, clock: Clock) -> None:
        self._terminal = terminal
        self._what = what
        self._clock = clock
        self._begun = clock.monotonic()
        #: What is going on, or empty.
        self._doing = f"importing {what}"
        self._said = ""
        #: Deployments whose failure was told in this attempt.
        self._told: set[str] = set()
        self._is_serving = False
        self.logs = LogView(terminal.lines, is_coloured=terminal.is_interactive)
        self.logs.hide_start_failures(hide=True)

    @property
    def is_counting(self) -> bool:
        """Whether `tick` is to be called now and then."""
        return bool(self._doing)

    def tick(self) -> None:
        """Show what is going on and for how long."""
        if not self._doing:
            self._terminal.status("")
            return
        took_s = self._clock.monotonic() - self._begun
        if self._terminal.is_interactive:
            if took_s >= _STATUS_AFTER_S:
                self._terminal.status(f"{took_s:3.0f} s  {self._doing}")
        elif took_s >= _LINE_AFTER_S and self._said != self._doing:
            self._said = self._doing
            self._terminal.line(self._doing)

    # ---- progress

    def changed(self, paths: list[str]) -> None:
        """Files were saved; a build begins."""
        shown = ", ".join(os.path.relpath(path) for path in paths[:3])
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        self._terminal.line(f"{shown}{more} changed, reloading", colour="cyan")
        self._begin(f"importing {self._what}")

    def preparing(self, text: str) -> None:
        """Packages are installed, or have been."""
        self._terminal.line(text)
        is_over = not text.endswith("...")
        self._doing = f"importing {self._what}" if is_over else text.removesuffix(" ...")
        self._said = self._doing

    def warn(self, texts: tuple[str, ...]) -> None:
        """Something is accepted and changes nothing."""
        for text in texts:
            self._terminal.line(f"warning: {text}", colour="yellow")

    def starting(self, specs: tuple[ApplicationSpec, ...]) -> None:
        """The applications are built; their replicas are being started."""
        self._doing = f"starting {_listed([d.name for spec in specs for d in spec.deployments])}"
        self._told.clear()

    def progress(self, status: ApplicationStatusOverview) -> None:
        """Something changed on the way."""
        waiting = []
        for name, deployment in status.deployments.items():
            if deployment.status is DeploymentStatus.HEALTHY:
                continue
            text, follows, error = deployment.message.partition(_ERROR_FOLLOWS)
            ready = _READY.match(text)
            if ready is None:
                waiting.append(name)
            elif ready[1] != ready[2]:
                waiting.append(f"{name} {ready[1]}/{ready[2]}")
            if follows and name not in self._told and deployment.status is DeploymentStatus.UPDATING:
                self._tell_failure(name, error)
        if waiting:
            self._doing = f"starting {_listed(waiting)}"

    def serving(
        self, record: InstanceRecord, specs: tuple[ApplicationSpec, ...], *, is_reload: bool, is_left: bool
    ) -> None:
        """The applications answer."""
        took_s = self._clock.monotonic() - self._begun
        self._end()
        self._is_serving = True
        self.logs.hide_start_failures(hide=False)
        if is_reload:
            self._terminal.line(f"the new code serves, after {took_s:.2f} s", colour="green")
            return
        rows = [row for spec in specs for row in _rows_of(record, spec)]
        rows.append(("instance", record.name))
        stop = f"trygon shutdown --instance {record.name}" if is_left else "Ctrl-C"
        rows.append(("stop with", stop))
        width = max(len(title) for title, _ in rows)
        lines = [
            self._terminal.paint(f"{self._what} serves, ready in {took_s:.2f} s", colour="green", bold=True)
        ]
        lines += [f"  {title:{width}}  {text}" for title, text in rows]
        self._terminal.lines(lines)

    # ---- failures

    def failed(self, text: str) -> None:
        """It cannot go on."""
        self._end()
        self._terminal.line(f"error: {text}", colour="red")

    def build_failed(self, result: Outcome, *, is_waiting: bool, is_serving: bool) -> None:
        """User code could not be imported, or makes no application."""
        if result.traceback:
            self._end()
            self._terminal.line(result.traceback)
        self.failed(result.error)
        self._say_next(is_waiting=is_waiting, is_serving=is_serving)

    def deploy_failed(self, text: str, *, is_waiting: bool) -> None:
        """The replicas could not be started."""
        before, follows, error = text.partition(_ERROR_FOLLOWS)
        if follows and any(f"deployment {name!r}" in before for name in self._told):
            text = before.rstrip().removesuffix("; ").rstrip(";") + "; its first error is above"
        elif follows:
            self.logs.already_told(error)
        self.failed(text)
        self._say_next(is_waiting=is_waiting, is_serving=self._is_serving)

    def gone(self, record: InstanceRecord, *, is_orderly: bool) -> None:
        """The instance ended, unasked by this command."""
        self._end()
        if is_orderly:
            self._terminal.line(f"the instance {record.name!r} was shut down by another program")
            return
        self.failed(
            f"the instance {record.name!r} ended unexpectedly; its log files in {record.log_dir} may tell why"
        )

    # ---- the end

    def stopping(self) -> None:
        """A signal asked for the end."""
        self._end()
        self._terminal.line("stopping (Ctrl-C again: at once)")

    def forcing(self) -> None:
        """A second signal did."""
        self._terminal.line("stopping at once")

    def close(self) -> None:
        """Leave no status line behind."""
        self._terminal.status("")

    def _begin(self, doing: str) -> None:
        self._begun = self._clock.monotonic()
        self._doing = doing
        self._said = ""
        self.logs.hide_start_failures(hide=True)

    def _end(self) -> None:
        self._doing = ""
        self._terminal.status("")

    def _tell_failure(self, name: str, error: str) -> None:
        self._told.add(name)
        self.logs.already_told(error)
        self._terminal.line(
            f"a replica of deployment {name!r} failed to start, trying again:", colour="yellow"
        )
        self._terminal.line(error.rstrip())

    def _say_next(self, *, is_waiting: bool, is_serving: bool) -> None:
        if is_waiting:
            before = "the old code serves on; " if is_serving else ""
            self._terminal.line(f"{before}waiting for a change of the files", colour="cyan")


def _rows_of(record: InstanceRecord, spec: ApplicationSpec) -> list[tuple[str, str]]:
    """Return the lines of the summary about one application."""
    url = base_url(record)
    deployments = _listed(
        [f"{d.name} ({_replicas(d.options.num_replicas)})" for d in reversed(spec.deployments)]
    )
    rows = [("application", f"{spec.name}: {deployments}")]
    if not url or spec.route_prefix is None:
        return [*rows, ("URL", "none: it is called through handles only")]
    # The prefix "/" is the address itself.
    prefix = spec.route_prefix.rstrip("/")
    note = f"  (listens on {record.host})" if record.host in {"0.0.0.0", "::"} else ""
    rows.append(("URL", f"{url}{prefix or '/'}{note}"))
    docs = spec.deployment(spec.ingress).docs_path
    if docs is not None:
        rows.append(("documentation", f"{url}{prefix}{docs}"))
    return rows


def base_url(record: InstanceRecord) -> str:
    """Return where an instance serves HTTP, without a trailing slash; empty when it does not."""
    if not record.port:
        return ""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(record.host, record.host)
    return (
        f"{record.scheme}://[{host}]:{record.port}"
        if ":" in host.strip("[]") and host[0] != "["
        else f"{record.scheme}://{host}:{record.port}"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
