"""Why something is as it is, as the decision log tells it."""

from __future__ import annotations

import pytest

from tests.unit.control.world import World, application, deployment
from trygon.control.explaining import explain
from trygon.errors import ServeError
from trygon.spec.explanation import DeploymentExplanation, Explanation


@pytest.fixture
def world() -> World:
    return World()


def why(world: World, name: str = "app") -> Explanation:
    return explain(world.state, name, world.now)


def only(found: Explanation) -> DeploymentExplanation:
    (deployment,) = found.deployments
    return deployment


def test_a_pause_after_failures_says_when_it_ends_and_why(world: World) -> None:
    world.deploy(application(deployment("Main", num_replicas=3)))
    for _ in range(3):
        world.broken(world.starting()[0], "ValueError: no weights")

    found = only(why(world))

    assert "the end of the pause after a failure" == found.waits_for
    assert found.next_try_in_s == pytest.approx(0.4)
    assert (3, 0, 3) == (found.failures, found.ready, found.wanted)
    assert "ValueError: no weights" == found.last_error


def test_each_cause_of_waiting_is_named(world: World) -> None:
    world.deploy(application(deployment("Main", children=("Child",)), deployment("Child")))
    assert "1 replica to be ready" == why(world).deployments[0].waits_for

    world.ready(*world.starting(deployment="Main"))
    assert "the other deployments of the revision" == why(world).deployments[0].waits_for

    world.ready(*world.starting())
    assert "every ingress process to route to it" == why(world).deployments[0].waits_for

    world.served()
    assert {""} == {found.waits_for for found in why(world).deployments}

    world.deploy(application())
    world.ready(*world.starting())
    world.served()
    assert "1 old replica to finish its requests" == why(world, "app/Main").deployments[0].waits_for

    world.delete()
    assert "2 replicas to finish their requests" == why(world, "app/Main").deployments[0].waits_for


def test_nothing_free_is_a_cause(world: World) -> None:
    world.deploy(application())
    world.unplaced(world.starting()[0])

    assert "resources: nothing is free" == only(why(world)).waits_for


def test_a_replica_is_found_by_its_id_or_tag_even_when_it_is_gone(world: World) -> None:
    world.deploy(application(deployment("Main", num_replicas=2)))
    first, second = world.starting()
    world.ready(first, second)
    world.now += 7.5
    world.ended(first)

    gone = only(why(world, first))
    there = only(why(world, second.rpartition("#")[2]))

    assert () == gone.replicas
    assert gone.decisions[-1].text.endswith("READY -> STOPPED (killed by SIGKILL)")
    assert [second] == [replica.replica_id for replica in there.replicas]
    assert 7.5 == there.replicas[0].age_s
    assert all(second in decision.text for decision in there.decisions)


def test_an_unknown_name_is_answered_with_the_nearest(world: World) -> None:
    with pytest.raises(ServeError, match="known are none"):
        why(world, "app")

    world.deploy(application())

    with pytest.raises(ServeError, match="did you mean 'app/Main'"):
        why(world, "app/Mian")
