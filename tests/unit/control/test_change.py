"""What `trygon plan` says of a change is what the controller does, for every option there is."""

from __future__ import annotations

from typing import Any

import pytest

from trygon.control.reconcile.change import next_revision
from trygon.control.state import Application, Revision
from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec, ResourceRequest
from trygon.spec.packages import PackageEnvironment
from trygon.spec.plan import Change, InstanceGoal, plan_changes, without_definitions
from trygon.spec.queueing import QueuePolicy

OTHERS: dict[str, Any] = {
    "resources": ResourceRequest(num_cpus=2),
    "queue": QueuePolicy(max_wait_s=5),
    "packages": PackageEnvironment(requirements=("colours==1.0",)),
    "rolling_update_percentage": 0.5,
    "backpressure_status_code": 429,
    "working_dir": "/elsewhere",
    "py_modules": ("/elsewhere/module.py",),
    "module_path": ("/elsewhere",),
}


def other(option: str) -> Any:
    """A value that is not the default."""
    default = getattr(DeploymentOptions(), option)
    if option in OTHERS:
        return OTHERS[option]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 3
    return (
        {"key": "value"}
        if isinstance(default, dict) or option in {"autoscaling", "logging", "user_config"}
        else 7
    )


def application(**options: Any) -> ApplicationSpec:
    deployment = DeploymentSpec(
        name="Main", app_name="app", definition=b"code", options=DeploymentOptions(**options)
    )
    return ApplicationSpec(name="app", ingress="Main", deployments=(deployment,), config={})


@pytest.mark.parametrize("option", DeploymentOptions.__struct_fields__)
def test_the_plan_and_the_controller_agree_on_every_option(option: str) -> None:
    old, new = application(), application(**{option: other(option)})
    running = Application("app")
    running.target = running.serving = Revision(number=1, spec=old)

    (planned,) = plan_changes(InstanceGoal(applications=(without_definitions(old),)), (new,), ()).applications
    revision = next_revision(running, Revision(number=2, spec=new), declarative=True)

    assert revision is not None
    assert (planned.deployments[0].change is Change.ROLLED) is (revision.generation("Main") == 2)
    assert planned.deployments[0].change is not Change.UNCHANGED
