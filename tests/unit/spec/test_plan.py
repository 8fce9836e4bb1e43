"""What a deploy would change: added, deleted, rolled, resized, reconfigured, adjusted or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from trygon.spec.application import (
    ApplicationSpec,
    CodeLocation,
    DeploymentOptions,
    DeploymentSpec,
    ResourceRequest,
)
from trygon.spec.plan import (
    Change,
    DeployPlan,
    InstanceGoal,
    plan_changes,
    removed_names,
    without_definitions,
)
from trygon.spec.queueing import QueuePolicy


def deployment(name: str = "Hello", definition: bytes = b"code", **options: Any) -> DeploymentSpec:
    return DeploymentSpec(
        name=name, app_name="a", definition=definition, options=DeploymentOptions(**options)
    )


def application(*deployments: DeploymentSpec, name: str = "a", **fields: Any) -> ApplicationSpec:
    found = deployments or (deployment(),)
    return ApplicationSpec(name=name, ingress=found[0].name, deployments=found, **fields)


def goal(*specs: ApplicationSpec, **fields: Any) -> InstanceGoal:
    return InstanceGoal(applications=tuple(without_definitions(spec) for spec in specs), **fields)


def plan(old: ApplicationSpec, new: ApplicationSpec) -> DeployPlan:
    return plan_changes(goal(old), (new,), ())


def test_the_same_again_is_nothing_to_do() -> None:
    found = plan(application(), application())

    assert not found.has_changes
    assert [Change.UNCHANGED] == [change.change for change in found.applications]


@pytest.mark.parametrize(
    "options, change, words",
    [
        ({"num_replicas": 3}, Change.RESIZED, "1 -> 3 replicas"),
        ({"autoscaling": {"max_replicas": 3}}, Change.RESIZED, "autoscaling changed"),
        ({"user_config": {"x": 1}}, Change.RECONFIGURED, "user_config changed"),
        ({"max_ongoing_requests": 9}, Change.RECONFIGURED, "max_ongoing_requests 5 -> 9"),
        ({"logging": {"log_level": "DEBUG"}}, Change.RECONFIGURED, "logging changed"),
        ({"queue": QueuePolicy(max_wait_s=3.0)}, Change.ADJUSTED, "queue changed"),
        ({"max_queued_requests": 7}, Change.ADJUSTED, "max_queued_requests -1 -> 7"),
        ({"health_check_period_s": 3.0}, Change.ADJUSTED, "health_check_period_s 10.0 -> 3.0"),
        ({"max_surge_percent": 0}, Change.ADJUSTED, "max_surge_percent None -> 0"),
        ({"resources": ResourceRequest(num_cpus=2)}, Change.ROLLED, "resources changed"),
        ({"env_vars": {"SECRET": "s3cret"}}, Change.ROLLED, "env_vars changed"),
        ({"working_dir": "/x"}, Change.ROLLED, "working_dir None -> '/x'"),
    ],
)
def test_what_changed_in_the_options_decides(options: dict[str, Any], change: Change, words: str) -> None:
    (found,) = plan(application(), application(deployment(**options))).applications

    assert change is found.change
    assert (words,) == found.deployments[0].details


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"code": CodeLocation(digest="2")}, "files of the code changed"),
        ({"code": CodeLocation(env_vars={"X": "1"})}, "env_vars of the application changed"),
        ({"code": CodeLocation(working_dir="/x")}, "working_dir"),
        ({"code": CodeLocation(sys_path=("/x",))}, "the folders that modules are looked for in changed"),
        ({"import_path": "shop:app"}, "import_path '' -> 'shop:app'"),
    ],
)
def test_what_concerns_the_code_of_all_rolls_all(fields: dict[str, Any], words: str) -> None:
    both = (deployment(), deployment("Other"))

    (found,) = plan(application(*both), application(*both, **fields)).applications

    assert [Change.ROLLED, Change.ROLLED] == [one.change for one in found.deployments]
    assert words in found.deployments[1].details[0]


def test_only_the_deployment_whose_code_changed_rolls() -> None:
    old = application(deployment(), deployment("Other"))
    new = application(deployment(definition=b"new"), deployment("Other"))

    (found,) = plan(old, new).applications

    assert Change.ROLLED is found.change
    assert [Change.ROLLED, Change.UNCHANGED] == [one.change for one in found.deployments]


def test_deployments_come_and_go_with_the_code() -> None:
    (found,) = plan(application(), application(deployment("New", num_replicas=2))).applications

    assert Change.ROLLED is found.change
    assert [("New", Change.ADDED), ("Hello", Change.DELETED)] == [
        (one.name, one.change) for one in found.deployments
    ]
    assert ("2 replicas",) == found.deployments[0].details


def test_another_route_costs_no_replica() -> None:
    (found,) = plan(application(), application(route_prefix="/b")).applications

    assert Change.ADJUSTED is found.change
    assert ("route_prefix '/' -> '/b'",) == found.details


def test_an_application_whose_last_revision_failed_is_a_change() -> None:
    found = plan_changes(goal(application(), failed=("a",)), (application(),), ())

    assert found.has_changes
    assert "tried again" in found.applications[0].details[0]


def test_applications_of_an_earlier_file_go_and_those_of_programs_stay() -> None:
    old = (application(config={}), application(name="b", config={}), application(name="c"))
    new = (application(name="a", config={}), application(name="d", config={}))

    removed = removed_names(old, new)
    found = plan_changes(goal(*old), new, removed)

    assert ("b",) == removed
    assert [("a", Change.UNCHANGED), ("d", Change.ADDED), ("b", Change.DELETED)] == [
        (change.name, change.change) for change in found.applications
    ]


def test_capacity_counts_what_runs_beside_and_not_what_goes() -> None:
    gpu = ResourceRequest(num_gpus=1, resources={"lamp": 2})
    old = (
        application(deployment(resources=gpu), config={}),
        application(deployment(resources=gpu), name="b"),
    )
    new = (application(deployment(resources=gpu, num_replicas=2), name="c"),)

    found = plan_changes(goal(*old, cpus=2, gpus=2, custom={"lamp": 6}), new, ("a",))

    assert [("CPU", 3.0, True), ("GPU", 3.0, False), ("lamp", 6.0, True)] == [
        (need.resource, need.needed, need.fits) for need in found.needs
    ]


def test_a_deployment_that_becomes_the_ingress_rolls_and_says_so() -> None:
    old = application(deployment("A"), deployment("B"))
    new = application(deployment("B"), deployment("A"))

    (change,) = plan(old, new).applications

    assert [Change.ROLLED, Change.ROLLED] == [each.change for each in change.deployments]
    assert "requests from outside go to it now" in change.deployments[0].details
