"""Rollouts, failures, crashes, resources and deletion, decided in virtual time."""

from __future__ import annotations

import pytest

from tests.unit.control.world import World, application, deployment
from trygon.control.actions import DrainReplica, FailRevision, KillReplica, StartReplica
from trygon.control.events import ReplicaReported
from trygon.control.reconcile.replica import InvalidTransition, ReplicaEventKind, ReplicaPhase, next_phase
from trygon.spec.application import ResourceRequest
from trygon.spec.status import (
    ApplicationStatus,
    DeploymentStatus,
    DeploymentStatusTrigger,
    ReplicaState,
)

PRESS = ResourceRequest(resources={"press": 1})


@pytest.fixture
def world() -> World:
    return World()


def up(world: World, *deployments: object) -> list[str]:
    """Deploy, make everything ready and served; return the replicas."""
    world.deploy(application(*deployments))  # type: ignore[arg-type]
    world.ready(*world.starting())
    world.served()
    return world.running()


def test_first_deploy_starts_everything_and_routes_when_all_are_ready(world: World) -> None:
    world.deploy(application(deployment("Main", num_replicas=2), deployment("Child")))
    assert 3 == len(world.starting())
    assert ApplicationStatus.DEPLOYING == world.status().status

    first, *rest = world.starting()
    world.ready(first)
    assert world.routed() is None

    world.ready(*rest)
    assert (1, world.running(deployment="Main")) == world.routed()
    assert ApplicationStatus.DEPLOYING == world.status().status
    world.served()
    status = world.status()
    assert ApplicationStatus.RUNNING == status.status
    assert DeploymentStatus.HEALTHY == status.deployments["Main"].status
    assert DeploymentStatusTrigger.CONFIG_UPDATE_COMPLETED == status.deployments["Main"].status_trigger
    assert {ReplicaState.RUNNING: 2} == status.deployments["Main"].replica_states


def test_ranks_are_given_from_the_lowest_free_one(world: World) -> None:
    one, two, three = up(world, deployment("Main", num_replicas=3))
    assert [0, 1, 2] == [world.app().replicas[r].launch.rank for r in (one, two, three)]

    world.ended(two)

    assert [1] == [world.app().replicas[r].launch.rank for r in world.starting()]


def test_upgrade_starts_the_new_before_the_old_leaves(world: World) -> None:
    (old,) = up(world)

    world.deploy(application())
    assert [old] == world.running()
    assert (1, [old]) == world.routed()
    (new,) = world.starting()
    world.ready(new)

    assert (2, [new]) == world.routed()
    assert [old] == world.draining()
    world.ended(old, reason="exit code 0")
    assert [new] == world.ids()


def test_parents_drain_before_their_children(world: World) -> None:
    graph = (
        deployment("Top", children=("Middle", "Leaf")),
        deployment("Middle", children=("Leaf",)),
        deployment("Leaf"),
    )
    up(world, *graph)
    world.deploy(application(*graph))
    world.ready(*world.starting())

    for name in ("Top", "Middle", "Leaf"):
        leaving = world.draining()
        assert world.ids(ReplicaPhase.DRAINING, deployment=name) == leaving
        assert 1 == len(leaving)
        world.ended(*leaving, reason="exit code 0")
    assert [] == world.ids(revision=1)


def test_draining_child_is_listed_until_it_is_told_to_go(world: World) -> None:
    graph = (deployment("Top", children=("Leaf",)), deployment("Leaf"))
    up(world, *graph)
    world.deploy(application(*graph))
    world.ready(*world.starting())

    listed = {(t.name, t.revision) for t in world.tables[-1].deployments if t.replicas}

    assert {("Top", 2), ("Leaf", 2), ("Leaf", 1)} == listed


def test_failing_start_is_retried_after_growing_pauses_and_given_up(world: World) -> None:
    world.deploy(application())
    for pause_s in (0.1, 0.2):
        world.broken(world.starting()[0], "ValueError: no weights")
        assert [] == world.ids()
        assert "ValueError: no weights" in world.status().message
        assert ApplicationStatus.DEPLOYING == world.status().status
        world.advance(pause_s - 0.01)
        assert [] == world.starting()
        world.advance(0.02)

    world.broken(world.starting()[0], "ValueError: still no weights")
    world.advance(1000.0)

    status = world.status()
    assert ApplicationStatus.DEPLOY_FAILED == status.status
    assert "ValueError: still no weights" in status.message
    assert DeploymentStatusTrigger.REPLICA_STARTUP_FAILED == status.deployments["Main"].status_trigger
    assert 3 == len(world.did(StartReplica))
    assert "could not be started" in world.tables[-1].deployments[0].unavailable


def test_retry_limit_is_the_smaller_of_the_option_and_three_per_replica(world: World) -> None:
    world.deploy(application(deployment("Main", num_replicas=4, max_constructor_retry_count=5)))
    for _ in range(5):
        world.broken(world.starting()[0])
        world.advance(20.0)

    assert 1 == len(world.did(FailRevision))


def test_failed_revision_leaves_the_old_one_serving(world: World) -> None:
    graph = (deployment("Main", children=("Child",)), deployment("Child"))
    old = up(world, *graph)
    world.deploy(application(*graph))
    world.ready(*world.starting(deployment="Main"))
    for _ in range(3):
        world.broken(world.starting(deployment="Child")[0])
        world.advance(20.0)

    assert sorted(old) == sorted(world.running())
    assert 1 == world.routed()[0]  # type: ignore[index]
    status = world.status()
    assert ApplicationStatus.DEPLOY_FAILED == status.status
    assert "revision 1 serves on" in status.message
    assert DeploymentStatus.DEPLOY_FAILED == status.deployments["Child"].status
    assert DeploymentStatus.UNHEALTHY == status.deployments["Main"].status


def test_next_deploy_after_a_failure_is_a_fresh_start(world: World) -> None:
    up(world)
    world.deploy(application())
    for _ in range(3):
        world.broken(world.starting()[0])
        world.advance(20.0)

    world.deploy(application())
    world.ready(*world.starting())
    world.served()

    assert ApplicationStatus.RUNNING == world.status().status
    assert 3 == world.status().revision


def test_crashed_replica_is_replaced_at_once(world: World) -> None:
    one, two = up(world, deployment("Main", num_replicas=2))
    world.advance(60.0)

    world.ended(one)

    assert (1, [two]) == world.routed()
    assert 1 == len(world.starting())
    status = world.status()
    assert ApplicationStatus.UNHEALTHY == status.status
    assert "killed by SIGKILL" in status.message
    world.ready(*world.starting())
    assert ApplicationStatus.RUNNING == world.status().status


def test_replica_that_dies_young_again_and_again_waits_longer_each_time(world: World) -> None:
    (replica,) = up(world)
    pauses = []
    for _ in range(12):
        world.ended(replica)
        began = world.now
        while not world.starting():
            world.advance(0.01)
        pauses.append(round(world.now - began, 1))
        (replica,) = world.starting()
        world.ready(replica)

    assert [0.0] * 5 == pauses[:5]
    assert pauses == sorted(pauses)
    assert 10.0 == pauses[-1]


def test_serving_revision_is_never_given_up(world: World) -> None:
    (replica,) = up(world)
    world.advance(60.0)
    world.ended(replica)
    for _ in range(30):
        world.advance(20.0)
        world.broken(world.starting()[0])

    assert ApplicationStatus.UNHEALTHY == world.status().status
    world.advance(20.0)
    assert 1 == len(world.starting())


def test_newer_deploy_replaces_one_that_is_still_starting(world: World) -> None:
    (old,) = up(world)
    world.deploy(application())
    (middle,) = world.starting()

    world.deploy(application())

    assert middle in [action.replica_id for action in world.did(KillReplica)]
    world.ended(middle)
    world.ready(*world.starting(revision=3))
    assert 3 == world.routed()[0]  # type: ignore[index]
    assert [old] == world.draining()


def test_exclusive_resource_makes_the_old_replica_leave_first(world: World) -> None:
    old = up(world, deployment("Main", num_replicas=2, resources=PRESS))
    world.deploy(application(deployment("Main", num_replicas=2, resources=PRESS)))
    first, second = world.starting()

    world.unplaced(first)
    world.unplaced(second)

    assert 1 == len(world.draining())
    assert "waiting for resources" in world.status().message
    world.ended(*world.draining(), reason="exit code 0")
    a, b = world.starting()
    world.unplaced(b)
    assert 1 == len(world.draining())
    world.ended(*world.draining(), reason="exit code 0")
    world.ready(a, *(r for r in world.starting() if r != a))
    assert 2 == len(world.running(revision=2))
    assert not set(old) & set(world.ids())


def test_failed_upgrade_of_an_exclusive_resource_brings_the_old_one_back(world: World) -> None:
    up(world, deployment("Main", resources=PRESS))
    world.deploy(application(deployment("Main", resources=PRESS)))
    world.unplaced(*world.starting())
    world.ended(*world.draining(), reason="exit code 0")
    for _ in range(3):
        world.broken(world.starting(revision=2)[0])
        world.advance(20.0)

    (back,) = world.starting(revision=1)
    world.ready(back)
    assert (1, [back]) == world.routed()


def test_waiting_for_another_applications_resource_goes_on_when_it_is_given_back(world: World) -> None:
    up(world, deployment("Main", resources=PRESS))
    world.deploy(application(deployment("Other", resources=PRESS), name="two", route_prefix="/two"))
    world.unplaced(*world.starting(app="two"))
    assert [] == world.starting(app="two")

    world.delete()
    world.ended(*world.draining(), reason="exit code 0")

    assert 1 == len(world.starting(app="two"))


def test_deleted_application_loses_its_route_at_once_and_is_forgotten_when_empty(world: World) -> None:
    up(world, deployment("Main", children=("Child",)), deployment("Child"))

    world.delete()

    assert world.routed() is None
    assert ApplicationStatus.DELETING == world.status().status
    world.ended(*world.draining(), reason="exit code 0")
    world.ended(*world.draining(), reason="exit code 0")
    assert {} == world.state.applications


def test_a_table_that_is_applied_after_the_deletion_changes_nothing(world: World) -> None:
    (old,) = up(world)
    world.delete()

    world.served()

    assert not world.app().served
    assert [old] == world.draining()


def test_deploy_while_deleting_goes_on_counting(world: World) -> None:
    (old,) = up(world)
    world.delete()

    world.deploy(application())
    world.ready(*world.starting())

    assert 2 == world.routed()[0]  # type: ignore[index]
    assert [old] == world.draining()


def test_replica_that_does_not_leave_is_killed_at_its_deadline(world: World) -> None:
    (replica,) = up(world, deployment("Main", graceful_shutdown_timeout_s=20.0))
    world.delete()

    assert [DrainReplica(replica, 20.0, "the application is deleted")] == world.did(DrainReplica)
    world.advance(19.9)
    assert [] == world.did(KillReplica)
    world.advance(0.2)

    assert [KillReplica(replica)] == world.did(KillReplica)
    world.advance(100.0)
    assert 1 == len(world.did(KillReplica))


def test_unhealthy_replica_is_replaced_and_killed_if_it_stays(world: World) -> None:
    (sick,) = up(world, deployment("Main", graceful_shutdown_timeout_s=10.0))
    world.advance(60.0)
    world.tell(ReplicaReported(sick, "check_health raised"))

    assert 1 == len(world.starting())
    assert (1, []) == world.routed()
    world.advance(14.0)
    assert [] == world.did(KillReplica)
    world.advance(2.0)
    assert [KillReplica(sick)] == world.did(KillReplica)


def test_log_explains_what_was_decided(world: World) -> None:
    (replica,) = up(world)
    world.ended(replica)

    story = [text for _, text in world.app().log["Main"]]

    assert "revision 1 is wanted" == story[0]
    assert any("STARTING -> READY" in text for text in story)
    assert any("READY -> STOPPED (killed by SIGKILL)" in text for text in story)


def test_impossible_transition_tells_its_story() -> None:
    with pytest.raises(InvalidTransition, match="UNPLACED cannot happen to a replica that is READY"):
        next_phase(ReplicaPhase.READY, ReplicaEventKind.UNPLACED)
