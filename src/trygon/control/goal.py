"""What is wanted of an instance, for those who compare it with something else. Pure."""

from __future__ import annotations

from trygon.control.state import ControllerState
from trygon.engine.base import Resources
from trygon.spec.plan import InstanceGoal, without_definitions

__all__ = ["goal_of"]


def goal_of(state: ControllerState, resources: Resources) -> InstanceGoal:
    """Return the newest specification of each application that is not being deleted."""
    wanted = [
        application.target or application.serving
        for application in state.applications.values()
        if not application.deleting
    ]
    return InstanceGoal(
        applications=tuple(without_definitions(revision.spec) for revision in wanted if revision is not None),
        failed=tuple(name for name, application in state.applications.items() if application.failure),
        cpus=resources.cpus,
        gpus=resources.gpus,
        custom=resources.custom,
        target_capacity=state.target_capacity,
    )
