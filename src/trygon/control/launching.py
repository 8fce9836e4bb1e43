"""Makes the launch of a replica from its revision: names, addresses, log file; and reads why one ended."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any

from trygon.control.actions import StartReplica
from trygon.control.old_logs import prune_logs
from trygon.control.state import Application
from trygon.spec.instance import InstanceRecord
from trygon.spec.launch import ReplicaLaunch

__all__ = ["Launching"]

#: What a process without last words wrote at the end of its log.
_TAIL_BYTES = 4096
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


class Launching:
    """Names and places replicas of one instance.

    Args:
        record: The instance.
        blobs: Where snapshots of code are kept; None for none.
        logging: How replicas log whose application does not say it, as JSON values.
    """

    def __init__(
        self, record: InstanceRecord, blobs: Path | None = None, logging: dict[str, Any] | None = None
    ) -> None:
        self._record = record
        #: Where snapshots of code are kept; None for none.
        self.blobs = blobs
        self.logging = logging

    def launch(self, application: Application, action: StartReplica) -> ReplicaLaunch:
        """Return the launch of one new replica."""
        revision = next(
            r
            for r in (application.target, application.serving)
            if r is not None and r.number == action.revision
        )
        spec = revision.spec
        deployment = revision.by_name[action.deployment]
        tag = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        log_name = f"replica_{_file_name(spec.name)}_{_file_name(deployment.name)}_{tag}"
        return ReplicaLaunch(
            replica_id=f"{spec.name}#{deployment.name}#{tag}",
            app_name=spec.name,
            deployment=deployment.name,
            revision=revision.number,
            is_ingress=deployment.name == spec.ingress,
            route_prefix=spec.route_prefix,
            definition=deployment.definition,
            options=deployment.options,
            code=spec.code,
            address=os.path.join(self._record.runtime_dir, f"{tag}.sock"),
            controller_address=self._record.controller_address,
            log_path=os.path.join(self._record.log_dir, f"{log_name}.log"),
            rank=action.rank,
            world_size=max(application.count(revision, deployment), action.rank + 1),
            is_helper=action.helper,
            parents=revision.parents(deployment.name),
            snapshot_path=self._blob(spec.code.snapshot),
            own_snapshot_path=self._blob(deployment.snapshot),
            app_logging=spec.logging or self.logging,
            generations={name: revision.generation(name) for name in revision.by_name},
            joins=action.joins,
        )

    def _blob(self, digest: str) -> str:
        return str(self.blobs / digest) if self.blobs and digest else ""

    def prune_logs(self, application: Application, launch: ReplicaLaunch) -> None:
        """Remove old logs of the deployment whose replica has ended."""
        if launch.log_path:
            alive = {r.launch.log_path for r in application.replicas.values()} - {launch.log_path}
            prune_logs(Path(launch.log_path), alive)

    def explain_exit(self, launch: ReplicaLaunch, reason: str) -> str:
        """Return why a replica ended before it was ready, with the end of its log."""
        tail = _tail(launch.log_path)
        return f"{reason} before it was ready; the end of {launch.log_path}:\n{tail}" if tail else reason


def _file_name(text: str) -> str:
    """Deployments may be called anything; files may not."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:80]


def _tail(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""
