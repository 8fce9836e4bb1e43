"""What an instance runs and what it has to do, for commands."""

from __future__ import annotations

from trygon.client.instance import Instance
from trygon.dataplane.traffic import with_traffic
from trygon.spec.status import InstanceStatus

__all__ = ["busy_status"]


def busy_status(instance: Instance) -> InstanceStatus:
    """Return the status of an instance with the traffic of the last minute.

    Raises:
        InstanceError: It does not answer.
    """
    return with_traffic(instance.status(), instance.record.runtime_dir)
