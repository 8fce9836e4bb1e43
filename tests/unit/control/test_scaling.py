"""The number of replicas follows the load: in virtual time, from reports to starts and drains."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.unit.control.world import World, application, deployment
from trygon.control.actions import AskPolicy, DrainReplica, ReconfigureReplica, ResizeDeployment
from trygon.control.details import applications_details
from trygon.control.events import PolicyAnswered, ReplicaMeasured
from trygon.control.explaining import explain
from trygon.scaling.decision import Proposal
from trygon.spec.application import ApplicationSpec, PolicyConfig
from trygon.spec.autoscaling import AutoscalingConfig
from trygon.spec.status import ApplicationStatus, DeploymentStatus, DeploymentStatusTrigger
from trygon.testing.simulator import Simulator

QUICK = {
    "min_replicas": 1,
    "max_replicas": 10,
    "upscale_delay_s": 2,
    "downscale_delay_s": 4,
    "look_back_period_s": 2,
}


def scaled(**changes: Any) -> ApplicationSpec:
    options = {**QUICK, **changes}
    config = AutoscalingConfig(**options)
    return application(
        deployment("Main", num_replicas=config.starting_replicas, autoscaling=config.to_builtins())
    )


def serving(**changes: Any) -> World:
    world = World()
    world.deploy(scaled(**changes))
    while world.starting():
        world.ready(*world.starting())
    world.served()
    return world


def settle(world: World) -> None:
    while world.starting() or world.draining():
        world.ready(*world.starting())
        world.ended(*world.draining(), reason="exit code 0")


def judged(world: World) -> tuple[DeploymentStatus, DeploymentStatusTrigger]:
    overview = world.status().deployments["Main"]
    return overview.status, overview.status_trigger


def test_callers_are_asked_for_their_load_only_where_the_number_follows_it() -> None:
    world = serving()
    fixed = World()
    fixed.deploy(application())

    assert [0.5] == [targets.load_period_s for targets in world.tables[-1].deployments]
    assert [0.0] == [targets.load_period_s for targets in fixed.tables[-1].deployments]


def test_without_load_nobody_is_woken() -> None:
    world = serving()
    world.advance(60)

    assert world.core.wakes.next() is None


def test_more_load_starts_replicas_after_the_delay() -> None:
    world = serving()
    world.keep_load(2, running=8)
    assert 1 == world.count()

    world.keep_load(2, running=8)

    assert (4, 3) == (world.count(), len(world.starting()))
    assert (DeploymentStatus.UPSCALING, DeploymentStatusTrigger.AUTOSCALING) == judged(world)
    assert ApplicationStatus.RUNNING == world.status().status
    settle(world)
    assert (DeploymentStatus.HEALTHY, DeploymentStatusTrigger.UPSCALE_COMPLETED) == judged(world)


def test_the_load_of_all_callers_is_one_load() -> None:
    world = serving()
    for _ in range(4):
        world.load(caller="a", running=4)
        world.load(caller="b", running=2)
        world.load(caller="c", queued=2)
        world.advance(1.0)

    assert 4 == world.count()


def test_a_caller_that_dies_takes_its_load_with_it() -> None:
    world = serving()
    world.keep_load(1, caller="a", running=8)
    world.lose("a")
    world.advance(30)

    assert 1 == world.count()
    assert world.core.wakes.next() is None


def test_a_caller_that_reports_no_more_is_forgotten() -> None:
    world = serving()
    world.load(caller="frozen", running=8)
    world.advance(60)

    assert 1 == world.count()


def test_the_idlest_replicas_go_first() -> None:
    world = serving()
    world.keep_load(4, running=8)
    settle(world)
    first, second, third, fourth = sorted(world.running())

    world.keep_load(8, running=3, replicas={third: 2, fourth: 1})

    assert {first, second} == {action.replica_id for action in world.did(DrainReplica)}
    assert (DeploymentStatus.DOWNSCALING, DeploymentStatusTrigger.AUTOSCALING) == judged(world)
    settle(world)
    assert [third, fourth] == sorted(world.running())
    assert (DeploymentStatus.HEALTHY, DeploymentStatusTrigger.DOWNSCALE_COMPLETED) == judged(world)


def test_a_deployment_that_shrank_grows_again_with_free_ranks() -> None:
    world = serving()
    world.keep_load(4, running=8)
    settle(world)
    busy = sorted(world.running())[-1]
    world.keep_load(8, running=1, replicas={busy: 1})
    settle(world)
    assert [busy] == world.running()

    world.keep_load(4, running=8, replicas={busy: 1})
    settle(world)

    ranks = [replica.launch.rank for replica in world.app().replicas.values()]
    assert 4 == len(set(ranks))


def test_to_zero_and_back_with_the_first_request() -> None:
    world = serving(min_replicas=0, downscale_to_zero_delay_s=3)
    assert [] == world.ids()
    assert ApplicationStatus.RUNNING == world.status().status

    world.load(queued=1)

    assert (1, 1) == (world.count(), len(world.starting()))
    assert "1 requests wait" in world.status().deployments["Main"].message
    settle(world)
    world.load(running=1)
    world.load()
    world.advance(60)
    settle(world)
    assert [] == world.ids()
    assert world.core.wakes.next() is None


def test_from_many_to_zero_in_two_steps_when_the_load_ends_at_once() -> None:
    world = serving(min_replicas=0, downscale_to_zero_delay_s=3, look_back_period_s=0.4)
    world.keep_load(6, running=8)
    settle(world)
    assert 4 == world.count()

    world.load()
    world.advance(60)
    settle(world)

    assert 0 == world.count()
    assert world.core.wakes.next() is None


def test_initial_replicas_count_at_the_first_deploy() -> None:
    world = World()
    world.deploy(scaled(initial_replicas=4))

    assert 4 == len(world.starting())


def test_a_new_revision_begins_with_as_many_as_the_load_needs() -> None:
    world = serving()
    world.keep_load(4, running=8)
    settle(world)

    world.deploy(scaled())

    assert 4 == len(world.starting(revision=2))
    settle(world)
    assert 4 == len(world.running(revision=2))


def test_bounds_that_change_in_place_hold_at_once_and_keep_what_the_load_taught() -> None:
    world = serving()
    world.keep_load(4, running=8)
    settle(world)

    world.apply(scaled(max_replicas=3))
    world.configured(*[action.replica_id for action in world.did(ReconfigureReplica)])
    world.advance(1)
    assert 3 == world.count()

    world.apply(scaled(min_replicas=6))
    world.advance(1)
    assert 6 == world.count()
    settle(world)
    assert 6 == len(world.running())


def test_a_configuration_that_says_the_same_changes_nothing() -> None:
    world = serving()
    world.keep_load(4, running=8)
    settle(world)

    world.apply(scaled())

    assert (4, 1) == (world.count(), world.app().last_revision)


def test_a_start_that_fails_is_tried_again_while_the_others_serve() -> None:
    world = serving()
    world.keep_load(4, running=8)
    for replica_id in world.starting():
        world.broken(replica_id)

    world.keep_load(5, running=8)

    assert 3 == len(world.starting())
    assert 1 == len(world.running())
    assert (
        DeploymentStatus.UNHEALTHY == judged(world)[0] or "boom" in world.status().deployments["Main"].message
    )


def test_what_does_not_fit_is_said_and_the_number_stays_wanted() -> None:
    world = serving()
    world.keep_load(4, running=8)
    for replica_id in world.starting():
        world.unplaced(replica_id)

    assert "waiting for resources: nothing is free" in world.status().deployments["Main"].message
    assert 4 == world.count()


def test_a_capacity_scales_the_bounds() -> None:
    spec = msgspec.structs.replace(scaled(min_replicas=4, max_replicas=8), target_capacity=50.0)
    world = World()
    world.deploy(spec)
    settle(world)
    world.keep_load(5, running=100)

    assert 4 == world.count()


def test_every_decision_can_be_explained() -> None:
    world = serving()
    world.keep_load(4, running=100)

    found = explain(world.state, "app/Main", world.now).deployments[0]
    details = applications_details(world.state, now=world.now, wall_now=0)["app"].deployments["Main"]

    assert 10 == found.wanted == details.target_num_replicas
    assert any("max_replicas allows 10" in line for line in found.scaling)
    assert any("scaled from 1 to 10 replicas" in decision.text for decision in found.decisions)
    assert details.autoscaling_detail is not None
    assert (1, 10, 100) == (
        details.autoscaling_detail["min_replicas"],
        details.autoscaling_detail["max_replicas"],
        details.autoscaling_detail["running_requests"],
    )
    assert 1 == details.autoscaling_detail["decisions"][0]["prev_num_replicas"]


def test_a_restarted_controller_goes_on_with_what_runs() -> None:
    simulator = Simulator(seed=3)
    simulator.deploy(scaled(initial_replicas=5, downscale_delay_s=90))
    simulator.settle()

    simulator.restart_controller()
    simulator.settle()

    simulator.run_for(60)
    assert 5 == simulator.num_ready("app", "Main"), "it does not shrink at once"
    simulator.run_for(60)
    assert 1 == simulator.num_ready("app", "Main")


# ---- policies of users


def policy(name: str = "policies:busy", **kwargs: Any) -> dict[str, Any]:
    return {"policy": {"policy_function": name, "policy_kwargs": kwargs}}


def answer(world: World, error: str = "", owner: str = "Main", **counts: float) -> None:
    proposals = {name: Proposal(count=count, policy_state={"n": count}) for name, count in counts.items()}
    world.tell(PolicyAnswered("app", world.app().last_revision, owner, proposals, error))


def test_a_policy_is_asked_and_its_answer_is_gone_by() -> None:
    world = serving(upscale_delay_s=0, **policy(step=2))
    world.tell(
        ReplicaMeasured(world.running()[0], {"depth": 6}), ReplicaMeasured(world.running()[0], {"depth": 8})
    )
    (asked,) = world.did(AskPolicy)
    assert ("policies:busy", {"step": 2}, "Main") == (
        asked.function.import_path,
        asked.function.kwargs,
        asked.owner,
    )
    world.advance(60)
    assert 1 == len(world.did(AskPolicy)), "one question at a time"

    answer(world, Main=3)
    world.advance(1)

    assert 3 == world.count()
    context = world.did(AskPolicy)[-1].contexts["Main"]
    assert [6, 8] == [value for _, value in context["raw_metrics"]["depth"][world.running()[0]]]
    assert ({"n": 3}, 3, {"depth": {world.running()[0]: 7}}) == (
        context["policy_state"],
        context["target_num_replicas"],
        context["aggregated_metrics"],
    )


def test_a_policy_that_fails_leaves_the_number_and_is_shown() -> None:
    world = serving(upscale_delay_s=0, **policy())
    answer(world, Main=3)
    settle(world)
    world.advance(1)

    answer(world, error="Traceback: ...\nValueError: no metrics today")
    world.advance(1)

    assert 3 == world.count()
    assert "ValueError: no metrics today" in world.status().deployments["Main"].message
    assert any("no metrics today" in text for _, text in world.app().log["Main"])
    answer(world, Main=3)
    assert "" == world.status().deployments["Main"].message


def test_one_policy_may_decide_for_the_whole_application() -> None:
    config = AutoscalingConfig(**{**QUICK, "upscale_delay_s": 0}).to_builtins()
    spec = application(
        deployment("Main", children=("Leaf",), autoscaling=config),
        deployment("Leaf", autoscaling=config),
        deployment("Fixed"),
    )
    world = World()
    world.deploy(msgspec.structs.replace(spec, autoscaling_policy=PolicyConfig(import_path="policies:all")))
    settle(world)

    (asked,) = world.did(AskPolicy)
    assert ("", {"Main", "Leaf"}) == (asked.owner, set(asked.contexts))
    answer(world, owner="", Leaf=4)

    assert (1, 4) == (world.count("Main"), world.count("Leaf"))


def test_decisions_are_no_more_frequent_than_reports_are_asked_for() -> None:
    world = serving()
    for _ in range(100):
        world.load(running=1)
        world.advance(0.01)

    assert len(world.did(ResizeDeployment)) <= 4
