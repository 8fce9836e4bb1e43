"""What a configuration file asks for: added and deleted in one step, and remembered as it was asked for."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from tests.integration.control.conftest import Start, app, deployment, pids, run
from tests.waiting import wait_until
from trygon.errors import DeployError
from trygon.spec.application import ApplicationSpec, ResourceRequest
from trygon.spec.plan import plan_changes, removed_names, without_definitions


def declared(name: str, route_prefix: str) -> ApplicationSpec:
    spec = app(deployment("Main"), name=name, route_prefix=route_prefix)
    return msgspec.structs.replace(spec, config={"import_path": "shop:app", "name": name})


def test_an_application_takes_the_route_of_one_that_is_deleted_in_the_same_step(start: Start) -> None:
    instance = start()
    instance.wait_running(instance.apply((declared("a", "/"), declared("b", "/b"))))

    instance.wait_running(instance.apply((declared("b", "/b"), declared("c", "/")), removed=("a", "nobody")))
    instance.delete("a")

    assert {"b": "/b", "c": "/"} == {n: a.route_prefix for n, a in instance.status().applications.items()}


def test_nothing_is_deleted_when_the_rest_is_refused(start: Start) -> None:
    instance = start()
    run(instance, declared("a", "/"))
    greedy = app(deployment("Main", resources=ResourceRequest(num_gpus=99)), name="b", route_prefix="/b")

    with pytest.raises(DeployError, match="not enough 'GPU'"):
        instance.apply((greedy,), removed=("a",))

    assert ["a"] == list(instance.status().applications)


def test_a_file_without_applications_deletes_the_last_one(start: Start) -> None:
    instance = start()
    run(instance, declared("a", "/"))

    assert {} == instance.apply((), removed=("a",))

    wait_until(lambda: not instance.status().applications, "the application to go")
    assert {} == instance.apply(())


def test_what_is_wanted_is_told_and_survives_a_killed_controller(start: Start) -> None:
    instance = start()
    wanted = (declared("a", "/"), app(deployment("Main"), name="b", route_prefix="/b"))
    run(instance, *wanted)
    before = instance.goal()

    (controller,) = pids(instance, "controller")
    os.kill(controller, signal.SIGKILL)
    after = instance.goal()

    assert tuple(without_definitions(spec) for spec in wanted) == before.applications
    assert before == after
    assert before.cpus > 0
    assert ("a",) == removed_names(after.applications, wanted[1:])
    assert not plan_changes(after, wanted, ()).has_changes
