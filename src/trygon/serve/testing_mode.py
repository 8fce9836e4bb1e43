"""`_local_testing_mode`: applications in this process, on the in-process engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trygon.dataplane.handle import DeploymentHandle
from trygon.spec.application import ApplicationSpec

if TYPE_CHECKING:
    from trygon.processes.inprocess import InProcessInstance

__all__ = ["delete_local", "run_local", "shutdown_local"]

_instance: InProcessInstance | None = None


def run_local(specs: tuple[ApplicationSpec, ...]) -> list[DeploymentHandle]:
    """Deploy into this process and wait until everything serves.

    Raises:
        DeployError: A constructor raised; the text has its traceback.
    """
    # The controller and the engine are loaded only when somebody tests with them.
    from trygon.processes.inprocess import InProcessInstance

    global _instance
    if _instance is None:
        _instance = InProcessInstance()
    # There is no HTTP, so no two applications can want one route.
    _instance.deploy(tuple(msgspec.structs.replace(spec, route_prefix=None) for spec in specs))
    return [DeploymentHandle(spec.ingress, spec.name, runtime=_instance.runtime) for spec in specs]


def delete_local(name: str) -> bool:
    """Delete an application of this process; False if there is none of that name."""
    return _instance is not None and _instance.delete(name)


def shutdown_local() -> None:
    """End every application of this process."""
    global _instance
    instance, _instance = _instance, None
    if instance is not None:
        instance.close()
