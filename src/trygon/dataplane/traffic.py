"""A status with the traffic of the last minute, which the processes of the instance published."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trygon.clock import RealClock
from trygon.observability.metrics.live import read_traffic
from trygon.spec.status import ApplicationStatusOverview, InstanceStatus, Traffic

__all__ = ["with_traffic"]


def with_traffic(status: InstanceStatus, runtime_dir: str) -> InstanceStatus:
    """Return the status with rates and latencies; blocks for as long as reading a few small files takes."""
    read = read_traffic(Path(runtime_dir), monotonic=RealClock.monotonic(), wall=RealClock.wall())
    found = {key: Traffic(**traffic._asdict()) for key, traffic in read.items()}
    applications = {name: _application(name, app, found) for name, app in status.applications.items()}
    return msgspec.structs.replace(status, applications=applications)


def _application(
    name: str, application: ApplicationStatusOverview, found: dict[tuple[str, str], Traffic]
) -> ApplicationStatusOverview:
    deployments = {
        deployment: msgspec.structs.replace(overview, traffic=found.get((name, deployment), Traffic()))
        for deployment, overview in application.deployments.items()
    }
    traffic = found.get((name, ""), Traffic())
    return msgspec.structs.replace(application, deployments=deployments, traffic=traffic)
