"""Deploying, upgrading, failing and deleting, through real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.integration.control.conftest import Start, app, deployment, pids, ready_replicas, run
from tests.waiting import wait_until
from trygon.errors import DeployError, InstanceError
from trygon.spec.application import CodeLocation, ResourceRequest
from trygon.spec.control import DeployApplications
from trygon.spec.routing import RoutingTable
from trygon.spec.status import ApplicationStatus, DeploymentStatus, ProxyStatus, ReplicaState


def test_application_runs_when_every_ingress_applied_its_table(start: Start) -> None:
    instance = start(num_ingress=2)

    revisions = run(instance, app(deployment("Main", num_replicas=2)))

    status = instance.status()
    overview = status.applications["default"]
    assert {"default": 1} == revisions
    assert ApplicationStatus.RUNNING == overview.status
    assert {ReplicaState.RUNNING: 2} == overview.deployments["Main"].replica_states
    assert {"0": ProxyStatus.HEALTHY, "1": ProxyStatus.HEALTHY} == status.proxies
    with socket.create_connection((instance.record.host, instance.record.port), timeout=5) as client:
        version = int(client.makefile().readline().split()[0])
    table = instance.link.table
    assert table is not None
    assert version >= table.version
    assert 2 == len(ready_replicas(table))


def test_upgrade_never_leaves_the_table_without_a_ready_replica(start: Start) -> None:
    instance = start()
    parent = deployment("Parent", children=("Child",))
    run(instance, app(parent, deployment("Child")))
    tables: list[RoutingTable] = []
    instance.on_table.append(tables.append)
    before = ready_replicas(instance.link.table)

    revisions = run(instance, app(parent, deployment("Child")))
    wait_until(lambda: len(pids(instance, "replica")) == 2, "the old replicas to go")

    assert {"default": 2} == revisions
    assert all(ready_replicas(table) for table in tables)
    assert not before & ready_replicas(instance.link.table)


def test_old_parents_leave_before_their_old_children(start: Start) -> None:
    instance = start()
    spec = app(deployment("Parent", children=("Child",)), deployment("Child"))
    run(instance, spec)
    tables: list[RoutingTable] = []
    instance.on_table.append(tables.append)

    run(instance, spec)
    wait_until(lambda: len(pids(instance, "replica")) == 2, "the old replicas to go")

    for table in tables:
        old = {t.name for t in table.deployments if t.revision == 1 and t.replicas}
        assert old != {"Parent"}, "a parent of revision 1 has no child to call"


def test_failing_constructor_is_reported_with_its_traceback(start: Start) -> None:
    instance = start()

    with pytest.raises(DeployError, match="ValueError: the weights are missing") as caught:
        run(instance, app(deployment("Main", {"fail": "Traceback...\nValueError: the weights are missing"})))

    assert "3 times" in str(caught.value)
    overview = instance.status().applications["default"]
    assert ApplicationStatus.DEPLOY_FAILED == overview.status
    assert DeploymentStatus.DEPLOY_FAILED == overview.deployments["Main"].status


def test_failed_revision_leaves_the_old_one_serving(start: Start) -> None:
    instance = start()
    run(instance)
    before = ready_replicas(instance.link.table)

    with pytest.raises(DeployError, match="revision 1 serves on"):
        run(instance, app(deployment("Main", {"fail": "no"}), deployment("Other")))
    wait_until(lambda: len(pids(instance, "replica")) == 1, "the failed revision to go")

    assert before == ready_replicas(instance.link.table)
    assert {"default": 3} == run(instance)


def test_process_that_ends_without_a_word_is_explained_by_its_log(start: Start) -> None:
    instance = start()

    with pytest.raises(DeployError, match="something went badly wrong") as caught:
        run(instance, app(deployment("Main", {"exit": 7})))

    assert "exit code 7" in str(caught.value)


def test_missing_working_directory_is_named(start: Start) -> None:
    instance = start()

    with pytest.raises(DeployError, match="No such file or directory: '/nowhere/at/all'"):
        run(instance, app(code=CodeLocation(working_dir="/nowhere/at/all")))


def test_refused_deploy_changes_nothing(start: Start) -> None:
    instance = start()
    run(instance, app(name="one", route_prefix="/x"))

    with pytest.raises(DeployError, match=r"'/x' of application 'two' is taken by application 'one'"):
        instance.deploy((app(name="fine", route_prefix="/y"), app(name="two", route_prefix="/x")))
    with pytest.raises(DeployError, match=r"not enough 'GPU': wanted 1 .* the machine has 0"):
        instance.deploy((app(deployment("Main", resources=ResourceRequest(num_gpus=1))),))

    assert ["one"] == list(instance.status().applications)


def test_more_cpus_than_the_machine_has_are_accepted_with_a_note(start: Start) -> None:
    instance = start()

    run(instance, app(deployment("Main", resources=ResourceRequest(num_cpus=4096))))

    assert "4096 CPUs" in instance.status().applications["default"].deployments["Main"].message


def test_upgrade_of_an_exclusive_resource_makes_room_first(start: Start) -> None:
    instance = start(resources={"press": 1})
    spec = app(deployment("Main", resources=ResourceRequest(resources={"press": 1})))
    run(instance, spec)

    assert {"default": 2} == run(instance, spec)

    assert 1 == len(pids(instance, "replica"))


def test_gpus_are_assigned_and_given_back(start: Start, tmp_path: Path) -> None:
    instance = start(gpu_ids=(4, 6))
    facts = tmp_path / "facts"

    run(instance, app(deployment("Main", {"touch": str(facts)}, resources=ResourceRequest(num_gpus=2))))

    assert "4,6" == json.loads(facts.read_text())["environ"]["CUDA_VISIBLE_DEVICES"]
    with pytest.raises(DeployError, match=r"in use 2 \(default/Main: 1 x 2 = 2\)"):
        instance.deploy(
            (app(deployment("M", resources=ResourceRequest(num_gpus=0.5)), name="b", route_prefix="/b"),)
        )
    instance.delete("default")
    run(instance, app(deployment("M", resources=ResourceRequest(num_gpus=0.5)), name="b", route_prefix="/b"))


def test_delete_waits_until_nothing_is_left(start: Start) -> None:
    instance = start()
    run(instance, app(deployment("Main", children=("Child",)), deployment("Child", num_replicas=2)))

    instance.delete("default")

    assert set() == pids(instance, "replica")
    assert {} == instance.status().applications
    instance.delete("default")
    assert {"default": 2} == run(instance)


def test_replica_that_does_not_leave_is_killed_after_its_timeout(start: Start) -> None:
    instance = start()
    run(instance, app(deployment("Main", {"stubborn": True}, graceful_shutdown_timeout_s=0.2)))

    instance.delete("default", timeout_s=10.0)

    assert set() == pids(instance, "replica")


def test_replica_gets_its_environment_and_nothing_of_the_supervisor(start: Start, tmp_path: Path) -> None:
    instance = start()
    facts = tmp_path / "facts"
    work = tmp_path / "work"
    work.mkdir()

    run(
        instance,
        app(
            deployment(
                "Main",
                {"touch": str(facts)},
                env_vars={"FLAVOUR": "mint"},
                resources=ResourceRequest(num_cpus=2.5),
            ),
            code=CodeLocation(
                sys_path=(str(work),), working_dir=str(work), env_vars={"FLAVOUR": "plain", "OTHER": "1"}
            ),
        ),
    )

    found = json.loads(facts.read_text())
    assert str(work) == found["cwd"]
    assert str(work) == found["sys_path"][0]
    assert ("mint", "1", "2") == tuple(found["environ"][n] for n in ("FLAVOUR", "OTHER", "OMP_NUM_THREADS"))
    assert "trygon.processes.supervisor" in found["argv"]
    # 0 to 2, the lifeline, and the loop's own: poller, wake-up pair, link, and the listing itself.
    assert len(found["fds"]) <= 10


def test_variables_that_act_at_exec_get_a_fresh_interpreter(start: Start, tmp_path: Path) -> None:
    instance = start()
    facts = tmp_path / "facts"

    run(
        instance,
        app(
            deployment(
                "Main", {"touch": str(facts)}, env_vars={"PYTHONHASHSEED": "7", "MALLOC_ARENA_MAX": "2"}
            )
        ),
    )

    found = json.loads(facts.read_text())
    assert "trygon.processes.replica_exec" in found["argv"]
    assert ("7", "2") == (found["environ"]["PYTHONHASHSEED"], found["environ"]["MALLOC_ARENA_MAX"])


def test_same_deploy_call_sent_twice_makes_one_revision(start: Start) -> None:
    instance = start()
    request = DeployApplications(applications=(app(),), token="t1")

    answers = [instance.submit(instance.link.call(request)).result(5) for _ in range(2)]

    assert [{"default": 1}, {"default": 1}] == answers


def test_ctrl_c_ends_a_wait_at_once(start: Start) -> None:
    instance = start()
    revisions = instance.deploy((app(deployment("Main", {"sleep": True})),))
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()

    with pytest.raises(KeyboardInterrupt):
        instance.wait_running(revisions)

    assert time.monotonic() - began < 1.0
    timer.join()


def test_progress_is_told_while_waiting(start: Start) -> None:
    instance = start()
    told: list[ApplicationStatus] = []

    instance.wait_running(instance.deploy((app(),)), on_progress=lambda _, status: told.append(status.status))

    assert ApplicationStatus.DEPLOYING == told[0]
    assert ApplicationStatus.RUNNING == told[-1]


def test_calls_after_the_end_fail_clearly(start: Start) -> None:
    instance = start()
    other = type(instance)(instance.record)
    instance.shutdown()

    with pytest.raises(InstanceError, match=r"gone|ended"):
        other.status()
    other.close()
