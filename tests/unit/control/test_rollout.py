"""What a deploy changes in place, what it rolls, and in which steps; decided in virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.unit.control.world import World, application, deployment
from trygon.control.actions import ReconfigureReplica, StartReplica
from trygon.control.core import Wakes
from trygon.control.events import ReplicaAdopted, ReplicaReported, Woken
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.spec.application import ApplicationSpec, CodeLocation, DeploymentSpec, ResourceRequest
from trygon.spec.status import ApplicationStatus, DeploymentStatus, DeploymentStatusTrigger

PRESS = ResourceRequest(resources={"press": 1})


@pytest.fixture
def world() -> World:
    return World()


def up(world: World, *deployments: DeploymentSpec, **fields: Any) -> list[str]:
    world.deploy(application(*deployments, **fields))
    world.ready(*world.starting())
    world.served()
    return world.running()


def changed(spec: DeploymentSpec, **options: Any) -> DeploymentSpec:
    return msgspec.structs.replace(spec, options=msgspec.structs.replace(spec.options, **options))


def recoded(spec: DeploymentSpec) -> DeploymentSpec:
    return msgspec.structs.replace(spec, definition=b"other code")


def ranks(world: World, *replica_ids: str) -> list[int]:
    return [world.app().replicas[r].launch.rank for r in replica_ids]


# ---- what changed decides


def test_same_again_changes_nothing(world: World) -> None:
    up(world)
    done = len(world.actions)

    world.apply(application())

    assert done == len(world.actions)
    assert 1 == world.app().last_revision


def test_serve_run_rolls_although_nothing_changed(world: World) -> None:
    (old,) = up(world)

    world.deploy(application())
    world.ready(*world.starting())

    assert [old] == world.draining()


def test_only_the_changed_deployment_rolls(world: World) -> None:
    top, leaf = deployment("Top", children=("Leaf",)), deployment("Leaf")
    up(world, top, leaf)
    (kept,) = world.running(deployment="Top")
    (old,) = world.running(deployment="Leaf")

    world.apply(application(top, recoded(leaf)))
    (new,) = world.starting()
    assert (1, [kept]) == world.routed()
    world.ready(new)
    world.served()

    assert (2, [kept]) == world.routed()
    assert [old] == world.draining()
    assert ApplicationStatus.RUNNING == world.status().status
    assert {"Top": 1, "Leaf": 2} == world.app().serving.generations  # type: ignore[union-attr]


def test_kept_replica_is_listed_for_the_revision_on_its_way_too(world: World) -> None:
    top, leaf = deployment("Top", children=("Leaf",)), deployment("Leaf")
    up(world, top, leaf)
    (kept,) = world.running(deployment="Leaf")

    world.apply(application(recoded(top), leaf))

    listed = {(t.name, t.revision): [r.replica_id for r in t.replicas] for t in world.tables[-1].deployments}
    assert [kept] == listed["Leaf", 1]
    assert [kept] == listed["Leaf", 2]
    assert [] == listed["Top", 2]
    world.ready(*world.starting())
    assert 1 == len(world.draining(deployment="Top"))
    listed = {(t.name, t.revision): [r.replica_id for r in t.replicas] for t in world.tables[-1].deployments}
    assert [kept] == listed["Leaf", 1], "the old parent still calls it by its own revision"
    assert [kept] == listed["Leaf", 2]


def test_kept_child_crashes_during_the_rollout_and_is_replaced(world: World) -> None:
    top, leaf = deployment("Top", children=("Leaf",)), deployment("Leaf", resources=PRESS)
    up(world, top, leaf)
    world.advance(60.0)
    world.apply(application(recoded(top), leaf))

    world.ended(*world.running(deployment="Leaf"))

    (replacement,) = world.starting(deployment="Leaf")
    assert 1 == world.app().replicas[replacement].launch.generation


@pytest.mark.parametrize(
    "change",
    [
        {"definition": b"other"},
        {"children": ("Leaf",)},
        {"options": {"resources": ResourceRequest(num_cpus=2)}},
        {"options": {"env_vars": {"A": "1"}}},
        {"options": {"working_dir": "/elsewhere"}},
    ],
)
def test_code_arguments_and_environment_roll(world: World, change: dict[str, Any]) -> None:
    main, leaf = deployment("Main"), deployment("Leaf")
    up(world, main, leaf)

    options = change.pop("options", {})
    world.apply(application(msgspec.structs.replace(changed(main, **options), **change), leaf))

    assert 1 == len(world.starting())
    assert 1 == len(world.starting(deployment="Main"))


@pytest.mark.parametrize(
    "change", [{"code": CodeLocation(working_dir="/elsewhere")}, {"import_path": "other:app"}]
)
def test_other_code_for_the_application_rolls_all_of_it(world: World, change: dict[str, Any]) -> None:
    graph = (deployment("Main"), deployment("Leaf"))
    up(world, *graph)

    world.apply(msgspec.structs.replace(application(*graph), **change))

    assert 2 == len(world.starting())


@pytest.mark.parametrize(
    "change",
    [
        {"user_config": {"threshold": 2}},
        {"max_ongoing_requests": 50},
        {"logging": {"log_level": "DEBUG"}},
        {"health_check_period_s": 1.0},
        {"graceful_shutdown_timeout_s": 1.0},
        {"max_queued_requests": 7},
        {"backpressure_status_code": 429},
        {"max_surge_percent": 50},
        {"rolling_update_percentage": 0.5},
    ],
)
def test_other_options_reach_the_running_replicas(world: World, change: dict[str, Any]) -> None:
    main = deployment("Main", num_replicas=2)
    kept = up(world, main)

    world.apply(application(changed(main, **change)))

    assert [ReconfigureReplica(r, 2) for r in kept] == world.did(ReconfigureReplica)
    assert DeploymentStatus.UPDATING == world.status().deployments["Main"].status
    world.configured(*kept)
    world.served()
    assert kept == world.running()
    assert ApplicationStatus.RUNNING == world.status().status
    assert (2, kept) == world.routed()


def test_new_limits_are_in_the_table(world: World) -> None:
    main = deployment("Main")
    up(world, main)

    world.apply(
        application(
            changed(main, max_ongoing_requests=9, max_queued_requests=3, backpressure_status_code=429)
        )
    )

    (targets,) = world.tables[-1].deployments
    assert (9, 3, 429) == (
        targets.max_ongoing_requests,
        targets.max_queued_requests,
        targets.backpressure_status_code,
    )


def test_new_shutdown_time_counts_for_a_kept_replica(world: World) -> None:
    main = deployment("Main", graceful_shutdown_timeout_s=20.0)
    (kept,) = up(world, main)
    world.apply(application(changed(main, graceful_shutdown_timeout_s=3.0)))
    world.configured(kept)

    world.delete()

    assert 3.0 == world.did(type(world.actions[-1]))[-1].timeout_s


def test_route_moves_without_a_restart(world: World) -> None:
    (kept,) = up(world)

    world.apply(application(route_prefix="/new"))

    assert (2, [kept]) == world.routed()
    assert "/new" == world.tables[-1].applications[0].route_prefix
    assert [] == world.did(ReconfigureReplica)


def test_refused_user_config_makes_the_deployment_unhealthy_and_a_second_deploy_mends_it(
    world: World,
) -> None:
    main = deployment("Main", num_replicas=2)
    first, second = up(world, main)
    world.apply(application(changed(main, user_config="bad")))

    world.configured(first)
    world.configured(second, error="ValueError: no such threshold")

    status = world.status()
    world.served()
    assert ApplicationStatus.UNHEALTHY == status.status
    assert "ValueError: no such threshold" in status.message
    assert (2, [first, second]) == world.routed()
    world.advance(100.0)
    assert 2 == len(world.did(ReconfigureReplica)), "a config that was refused is not tried again"

    world.apply(application(main))
    world.configured(first, second)
    world.served()
    assert ApplicationStatus.RUNNING == world.status().status
    assert [first, second] == world.running()


def test_order_to_reconfigure_that_got_lost_is_given_again(world: World) -> None:
    main = deployment("Main")
    (kept,) = up(world, main)
    world.apply(application(changed(main, user_config=1)))

    world.tell(ReplicaReported(kept))

    assert 2 == len(world.did(ReconfigureReplica))
    world.configured(kept)
    world.tell(ReplicaReported(kept))
    assert 2 == len(world.did(ReconfigureReplica))


def test_replica_that_was_starting_is_reconfigured_when_it_is_ready(world: World) -> None:
    main = deployment("Main")
    (first,) = up(world, main)
    world.advance(60.0)
    world.ended(first)
    (slow,) = world.starting()

    world.apply(application(changed(main, user_config=1)))
    assert [] == world.did(ReconfigureReplica)
    world.ready(slow)

    assert [slow] == [action.replica_id for action in world.did(ReconfigureReplica)]


def test_adopted_replica_is_told_the_options_it_may_have_missed(world: World) -> None:
    main = deployment("Main")
    (kept,) = up(world, main)
    world.apply(application(changed(main, user_config=1)))
    world.configured(kept)
    launch = world.app().replicas[kept].launch
    after = World()
    after.state.applications["app"] = found = type(world.app())("app")
    found.target = found.serving = world.app().serving
    found.last_revision = 2
    after.state.unserved.add("app")

    after.tell(ReplicaAdopted(launch, 1, ReplicaPhase.READY), Woken())

    assert [ReconfigureReplica(kept, 2)] == after.did(ReconfigureReplica)
    assert [] == after.did(StartReplica)


# ---- scaling


def test_scaling_up_starts_what_is_missing_and_keeps_the_rest(world: World) -> None:
    main = deployment("Main")
    (kept,) = up(world, main)

    world.apply(application(changed(main, num_replicas=3)))

    assert [1, 2] == ranks(world, *world.starting())
    assert DeploymentStatus.UPSCALING == world.status().deployments["Main"].status
    world.ready(*world.starting())
    world.configured(kept)
    world.served()
    overview = world.status().deployments["Main"]
    assert DeploymentStatusTrigger.UPSCALE_COMPLETED == overview.status_trigger
    assert 3 == len(world.running())


def test_scaling_down_drains_the_highest_ranks(world: World) -> None:
    main = deployment("Main", num_replicas=4)
    up(world, main)

    world.apply(application(changed(main, num_replicas=2)))
    world.served()

    assert [2, 3] == sorted(ranks(world, *world.draining()))
    assert [0, 1] == ranks(world, *world.running())
    assert DeploymentStatus.DOWNSCALING == world.status().deployments["Main"].status
    world.ended(*world.draining(), reason="exit code 0")
    world.configured(*world.running())
    overview = world.status().deployments["Main"]
    assert DeploymentStatusTrigger.DOWNSCALE_COMPLETED == overview.status_trigger


def test_surplus_stays_while_a_lower_rank_is_missing(world: World) -> None:
    main = deployment("Main", num_replicas=3)
    first, *_ = up(world, main)
    world.advance(60.0)
    world.ended(first)

    world.apply(application(changed(main, num_replicas=2)))

    assert [] == world.draining()
    world.ready(*world.starting())
    assert [2] == ranks(world, *world.draining())


def test_scaling_while_another_deployment_rolls_waits_for_it(world: World) -> None:
    main, leaf = deployment("Main", children=("Leaf",)), deployment("Leaf")
    up(world, main, leaf)

    world.apply(application(changed(main, num_replicas=2), recoded(leaf)))
    assert 1 == len(world.starting())
    world.ready(*world.starting())

    assert 1 == len(world.starting(deployment="Main"))


# ---- batches


def roll(world: World, spec: DeploymentSpec, wanted: int, *, extra: int, at_least: int) -> list[int]:
    """Make everything ready that starts and end everything that leaves; return how many started in each step."""
    batches = []
    world.deploy(application(spec))
    for _ in range(100):
        starting = world.starting()
        assert len(world.ids()) <= wanted + extra
        assert len(world.app().rotation("Main")) >= at_least
        assert set(world.routed()[1]) == {  # type: ignore[index]
            r.replica_id for r in world.app().rotation("Main")
        }
        if starting:
            batches.append(len(starting))
        world.ready(*starting)
        assert len(world.app().rotation("Main")) >= at_least
        world.ended(*world.draining(), reason="exit code 0")
        if not world.starting() and not world.draining():
            break
    world.served()
    assert ApplicationStatus.RUNNING == world.status().status
    assert 2 == world.app().serving.number  # type: ignore[union-attr]
    assert list(range(wanted)) == sorted(ranks(world, *world.running()))
    assert {2} == {r.launch.generation for r in world.app().replicas.values()}
    return batches


@pytest.mark.parametrize(
    "count, surge, share, extra, at_least, batches",
    [
        (4, 25, 0.2, 1, 4, [1, 1, 1, 1]),
        (4, 50, 0.5, 2, 4, [2, 2]),
        (4, 100, 0.2, 4, 4, [1, 1, 1, 1]),
        (4, 100, 1.0, 4, 4, [4]),
        (1, 25, 0.2, 1, 1, [1]),
        (10, 15, 0.5, 2, 10, [2, 2, 2, 2, 2]),
        (4, 0, 0.2, 0, 3, [1, 1, 1, 1]),
        (4, 0, 0.5, 0, 2, [2, 2]),
        (1, 0, 0.2, 0, 0, [1]),
    ],
)
def test_batched_update_keeps_its_limits(
    world: World, count: int, surge: int, share: float, extra: int, at_least: int, batches: list[int]
) -> None:
    spec = deployment("Main", num_replicas=count, max_surge_percent=surge, rolling_update_percentage=share)
    up(world, spec)

    assert batches == roll(world, spec, count, extra=extra, at_least=at_least)


def test_drained_replica_gives_its_rank_to_its_replacement(world: World) -> None:
    spec = deployment("Main", num_replicas=3, max_surge_percent=0)
    up(world, spec)
    world.deploy(application(spec))
    (leaving,) = world.draining()
    rank = ranks(world, leaving)

    world.ended(leaving, reason="exit code 0")

    assert rank == ranks(world, *world.starting())


def test_failing_batch_stops_the_update_and_what_was_drained_comes_back(world: World) -> None:
    spec = deployment("Main", num_replicas=3, max_surge_percent=0)
    up(world, spec)
    world.deploy(application(spec))
    world.ended(*world.draining(), reason="exit code 0")
    world.ready(*world.starting())
    world.ended(*world.draining(), reason="exit code 0")
    assert (1, 1) == (len(world.running(revision=2)), len(world.running(revision=1)))

    while world.app().wanted is not None:
        world.broken(world.starting()[0], "ValueError: no weights")
        assert 2 == len(world.app().rotation("Main"))
        world.advance(20.0)

    status = world.status()
    assert ApplicationStatus.DEPLOY_FAILED == status.status
    assert "ValueError: no weights" in status.message
    for _ in range(10):
        assert len(world.app().rotation("Main")) >= 2
        world.ready(*world.starting())
        world.ended(*world.draining(), reason="exit code 0")
    assert 3 == len(world.running(revision=1)) == len(world.ids())
    assert (1, world.running()) == world.routed()

    world.deploy(application(spec))
    for _ in range(10):
        world.ready(*world.starting())
        world.ended(*world.draining(), reason="exit code 0")
    world.served()
    assert ApplicationStatus.RUNNING == world.status().status
    assert 3 == len(world.running(revision=3)) == len(world.ids())


def test_deploy_in_the_middle_of_batches_replaces_both_older_ones(world: World) -> None:
    spec = deployment("Main", num_replicas=4, max_surge_percent=25)
    up(world, spec)
    world.deploy(application(spec))
    world.ready(*world.starting())
    world.ended(*world.draining(), reason="exit code 0")
    assert 1 == len(world.starting(revision=2))

    world.deploy(application(spec))

    assert [] == world.starting(revision=2)
    for _ in range(20):
        assert len(world.app().rotation("Main")) >= 4
        assert len(world.ids()) <= 5
        world.ended(*world.draining(), reason="exit code 0")
        world.ready(*world.starting())
    assert 4 == len(world.running(revision=3)) == len(world.ids())
    assert 3 == world.routed()[0]  # type: ignore[index]


def test_whole_update_in_the_middle_of_batches_keeps_the_rotation_full(world: World) -> None:
    spec = deployment("Main", num_replicas=3, max_surge_percent=0)
    up(world, spec)
    world.deploy(application(spec))
    world.ended(*world.draining(), reason="exit code 0")
    world.ready(*world.starting())

    world.deploy(application(changed(spec, max_surge_percent=None)))

    for _ in range(10):
        assert len(world.app().rotation("Main")) >= 2
        world.ready(*world.starting())
        world.ended(*world.draining(), reason="exit code 0")
    assert 3 == len(world.running(revision=3)) == len(world.ids())


def test_crash_in_the_middle_of_batches_does_not_stop_them(world: World) -> None:
    spec = deployment("Main", num_replicas=4, max_surge_percent=0)
    up(world, spec)
    world.advance(60.0)
    world.deploy(application(spec))
    world.ended(*world.draining(), reason="exit code 0")
    world.ready(*world.starting())
    world.ended(world.running(revision=2)[0])

    for _ in range(20):
        world.ready(*world.starting())
        world.ended(*world.draining(), reason="exit code 0")
        world.advance(5.0)

    assert 4 == len(world.running(revision=2)) == len(world.ids())


def test_helper_that_comes_in_the_middle_of_batches_stays_until_the_update_is_complete(world: World) -> None:
    spec = deployment("Main", num_replicas=2, max_surge_percent=50, rolling_update_percentage=0.5)
    up(world, spec)
    stuck = world.running()
    world.deploy(application(spec))
    (new,) = world.starting()

    for replica in stuck:
        world.blocked(replica)
    world.advance(10.1)

    (helper,) = (r.replica_id for r in world.app().replicas.values() if r.launch.is_helper)
    assert {new, helper} == set(world.starting())
    world.ready(helper)
    while world.starting():
        world.ready(*world.starting())
        world.ended(*world.draining(), reason="exit code 0")
    assert [0, 1] == sorted(ranks(world, *world.running()))
    assert helper not in world.ids()
    assert 2 == world.app().serving.number  # type: ignore[union-attr]


def test_parents_wait_for_their_children_in_batches(world: World) -> None:
    options = {"num_replicas": 2, "max_surge_percent": 50}
    graph = (deployment("Top", children=("Leaf",), **options), deployment("Leaf", **options))
    up(world, *graph)

    world.deploy(application(*graph))

    seen = []
    for _ in range(20):
        seen += [world.app().replicas[r].launch.deployment for r in world.starting()]
        world.ready(*world.starting())
        world.ended(*world.draining(), reason="exit code 0")
    assert ["Leaf", "Leaf", "Top", "Top"] == seen
    assert 4 == len(world.running(revision=2)) == len(world.ids())


def test_surge_that_does_not_fit_stops_one_old_replica_first(world: World) -> None:
    spec = deployment("Main", num_replicas=2, max_surge_percent=50, resources=PRESS)
    up(world, spec)
    world.deploy(application(spec))

    world.unplaced(*world.starting())

    assert 1 == len(world.draining())
    world.ended(*world.draining(), reason="exit code 0")
    for _ in range(3):
        world.ready(*world.starting())
        world.ended(*world.draining(), reason="exit code 0")
    assert 2 == len(world.running(revision=2)) == len(world.ids())


def test_status_says_that_the_only_replica_stops_first(world: World) -> None:
    spec = deployment("Main", resources=PRESS)
    up(world, spec)
    world.deploy(application(spec))

    world.unplaced(*world.starting())

    assert "its only replica stops before the next one starts" in world.status().message


def test_files_go_on_with_an_update_that_is_under_way(world: World) -> None:
    spec = deployment("Main", num_replicas=2)
    up(world, spec)
    world.apply(application(recoded(spec)))
    first, second = world.starting()
    world.ready(first)

    world.apply(application(changed(recoded(spec), user_config=1)))

    assert [second] == world.starting(), "what was started already is not started again"
    world.ready(second)
    assert 3 == world.routed()[0]  # type: ignore[index]
    assert {first, second} == {action.replica_id for action in world.did(ReconfigureReplica)}


def test_files_go_back_to_what_still_serves(world: World) -> None:
    spec = deployment("Main")
    (kept,) = up(world, spec)
    world.apply(application(recoded(spec)))
    (coming,) = world.starting()

    world.apply(application(spec))

    assert (3, [kept]) == world.routed()
    assert coming not in world.starting()


def test_what_was_given_up_is_tried_again_by_the_same_file(world: World) -> None:
    spec = deployment("Main", max_constructor_retry_count=1)
    up(world, spec)
    world.apply(application(recoded(spec)))
    world.broken(*world.starting())
    assert ApplicationStatus.DEPLOY_FAILED == world.status().status

    world.apply(application(recoded(spec)))

    assert 1 == len(world.starting(revision=3))


def test_deployment_that_is_removed_leaves_when_the_rest_is_complete(world: World) -> None:
    top, leaf = deployment("Top", children=("Leaf",)), deployment("Leaf")
    up(world, top, leaf)
    (kept,) = world.running(deployment="Top")

    world.apply(application(msgspec.structs.replace(top, children=())))
    assert 2 == len(world.running())
    world.ready(*world.starting())
    world.ended(kept, reason="exit code 0")
    world.ended(*world.draining(), reason="exit code 0")

    assert 1 == len(world.ids())


# ---- cost follows change


def test_step_for_one_application_looks_at_no_other(world: World) -> None:
    for n in range(30):
        spec: ApplicationSpec = application(name=f"a{n}", route_prefix=f"/{n}")
        world.deploy(spec)
        world.ready(*world.starting(app=f"a{n}"))
    before = world.core.num_reconciled

    world.ended(world.running(app="a7")[0])

    assert world.core.num_reconciled - before <= 3


def test_wakes_come_in_order_and_once_only() -> None:
    wakes = Wakes()
    wakes.set("a", 5.0)
    wakes.set("b", 3.0)
    wakes.set("a", 1.0)
    wakes.set("c", 2.0)
    wakes.set("c", None)

    assert 1.0 == wakes.next()
    assert () == wakes.take_due(0.5)
    assert ("a", "b") == wakes.take_due(4.0)
    assert wakes.next() is None
    assert () == wakes.take_due(100.0)


def test_update_under_way_keeps_its_way_when_the_surge_changes(world: World) -> None:
    spec = deployment("Main", num_replicas=3)
    up(world, spec)
    world.apply(application(recoded(spec)))
    world.ready(*world.starting()[:2])

    world.apply(application(changed(recoded(spec), max_surge_percent=100)))

    assert 3 == len(world.app().rotation("Main")), "those that do not take requests replace nobody"
    world.ready(*world.starting())
    assert 3 == world.routed()[0]  # type: ignore[index]
    assert 3 == len(world.running(revision=2))
