"""Blocked and frozen replicas, help, and crash loops, decided in virtual time."""

from __future__ import annotations

import pytest

from tests.unit.control.world import World, application, deployment
from trygon.control.actions import DrainReplica, GiveUpReplica, StartReplica
from trygon.control.reconcile.health import Signs, describe_trouble, diagnose, health_limit_s
from trygon.control.reconcile.replica import ReplicaPhase, Trouble, TroubleKind
from trygon.engine.base import Vitals
from trygon.spec.application import DeploymentOptions, ResourceRequest
from trygon.spec.status import ApplicationStatus, DeploymentStatus

STOPPED = Vitals(stopped=True, running=False, cpu_s=1.0)
ASLEEP = Vitals(stopped=False, running=False, cpu_s=1.0)
RUNNING = Vitals(stopped=False, running=True, cpu_s=1.0)


@pytest.fixture
def world() -> World:
    return World()


def up(world: World, *, at: float = 60.0, **options: object) -> list[str]:
    """Deploy one deployment, make it ready and served, and let time pass; return the replicas."""
    world.deploy(application(deployment("Main", **options)))
    world.ready(*world.starting())
    world.served()
    world.advance(at)
    return world.running()


# ---- what the signs mean


def test_a_beat_of_late_means_well_whatever_the_kernel_says() -> None:
    signs = Signs(heard_at=100.0, worked_at=100.0, vitals=STOPPED)

    assert diagnose(signs, 102.0) is None


def test_a_beat_that_tells_of_a_blocked_loop_means_blocked() -> None:
    signs = Signs(heard_at=100.0, blocked_s=4.0, where="app.py:30", worked_at=100.0)

    trouble = diagnose(signs, 101.0)

    assert Trouble(kind=TroubleKind.BLOCKED, since=96.0, for_s=5.0, where="app.py:30") == trouble


def test_a_stopped_process_is_frozen_even_if_its_watchdog_was_never_heard() -> None:
    trouble = diagnose(Signs(heard_at=None, worked_at=100.0, vitals=STOPPED), 105.0)

    assert Trouble(kind=TroubleKind.FROZEN, since=100.0, for_s=5.0, stopped=True) == trouble


@pytest.mark.parametrize("vitals", [ASLEEP, RUNNING, None])
def test_nothing_is_known_of_a_replica_without_a_watchdog(vitals: Vitals | None) -> None:
    assert diagnose(Signs(heard_at=None, worked_at=100.0, vitals=vitals), 1000.0) is None


@pytest.mark.parametrize(
    "vitals, worked_at", [(RUNNING, 100.0), (ASLEEP, 119.0)], ids=["on a processor", "was on one lately"]
)
def test_a_silent_process_that_works_is_blocked_and_not_frozen(vitals: Vitals, worked_at: float) -> None:
    trouble = diagnose(Signs(heard_at=100.0, worked_at=worked_at, vitals=vitals), 120.0)

    assert trouble is not None
    assert TroubleKind.BLOCKED == trouble.kind
    assert "interpreter lock" in trouble.where


@pytest.mark.parametrize("vitals", [ASLEEP, None])
def test_a_silent_process_that_does_not_work_is_frozen_since_its_last_sign_of_life(
    vitals: Vitals | None,
) -> None:
    trouble = diagnose(Signs(heard_at=100.0, worked_at=103.0, vitals=vitals), 110.0)

    assert Trouble(kind=TroubleKind.FROZEN, since=103.0, for_s=7.0) == trouble


def test_troubles_are_told_in_words() -> None:
    blocked = Trouble(kind=TroubleKind.BLOCKED, since=0.0, for_s=12.3, where="app.py:30")
    frozen = Trouble(kind=TroubleKind.FROZEN, since=0.0, for_s=7.0, stopped=True)

    assert "its loop is blocked for 12 s at app.py:30" == describe_trouble(blocked)
    assert "its process has not answered for 7 s and is stopped" == describe_trouble(frozen)


def test_the_limit_of_a_blocked_loop_is_three_health_checks() -> None:
    assert 100.0 == health_limit_s(DeploymentOptions())
    checked = DeploymentOptions(health_check_period_s=10.0, health_check_timeout_s=1.0)
    assert 31.0 == health_limit_s(checked)


# ---- frozen


def test_a_frozen_replica_is_replaced_after_seven_seconds(world: World) -> None:
    frozen, other = up(world, num_replicas=2)

    world.frozen(frozen)
    world.advance(6.9)
    assert [] == world.did(GiveUpReplica)
    world.advance(0.2)

    (given_up,) = world.did(GiveUpReplica)
    assert frozen == given_up.replica_id
    assert "has not answered for 7 s and is stopped" in given_up.reason
    assert (1, [other]) == world.routed()
    assert 1 == len(world.starting())
    world.ended(frozen)
    world.advance(100.0)
    assert 1 == len(world.did(GiveUpReplica))


def test_a_process_that_goes_on_in_time_is_left_alone(world: World) -> None:
    (replica,) = up(world)

    world.frozen(replica)
    world.advance(6.0)
    world.well(replica)
    world.advance(100.0)

    assert [] == world.did(GiveUpReplica)
    assert [replica] == world.running()


def test_a_frozen_replica_that_shall_leave_is_not_waited_for(world: World) -> None:
    (replica,) = up(world, graceful_shutdown_timeout_s=60.0)
    world.delete()

    world.frozen(replica)
    world.advance(3.1)

    assert [replica] == [action.replica_id for action in world.did(GiveUpReplica)]
    assert [replica] == world.draining()


def test_a_replica_that_starts_is_exempt(world: World) -> None:
    world.deploy(application())
    (replica,) = world.starting()

    world.frozen(replica, 30.0)
    world.blocked(replica, 1000.0)
    world.advance(1000.0)

    assert [] == world.did(GiveUpReplica)
    assert [replica] == world.starting()


def test_a_late_word_from_the_start_does_not_count_against_a_ready_replica(world: World) -> None:
    world.deploy(application())
    (replica,) = world.starting()
    world.ready(replica)

    world.blocked(replica, 1000.0)
    world.advance(5.0)

    assert [] == world.did(GiveUpReplica)
    assert 1 == len(world.did(StartReplica))


# ---- blocked


def test_a_blocked_replica_gets_help_after_ten_seconds_that_leaves_when_it_recovers(world: World) -> None:
    (replica,) = up(world)

    world.blocked(replica)
    world.advance(9.9)
    assert [] == world.starting()
    world.advance(0.2)
    (helper,) = world.starting()
    assert 1 == world.app().replicas[helper].launch.rank
    world.ready(helper)
    assert (1, [replica, helper]) == world.routed()
    world.advance(50.0)
    assert [] == world.did(DrainReplica)

    world.well(replica)

    assert [helper] == world.draining()
    assert (1, [replica]) == world.routed()


def test_a_helper_that_still_starts_is_called_off(world: World) -> None:
    (replica,) = up(world)
    world.blocked(replica, 11.0)
    (helper,) = world.starting()

    world.well(replica)

    assert [DrainReplica(helper, 0.0, "its help is no longer needed")] == world.did(DrainReplica)


def test_a_replica_blocked_beyond_its_health_limits_is_replaced_and_its_helper_leaves_then(
    world: World,
) -> None:
    (replica,) = up(world)
    world.blocked(replica)
    world.advance(10.1)
    (helper,) = world.starting()
    world.ready(helper)

    world.advance(89.8)
    assert [] == world.did(GiveUpReplica)
    world.advance(0.2)
    (given_up,) = world.did(GiveUpReplica)
    assert "its loop is blocked for 100 s at app.py:30" in given_up.reason
    world.ended(replica)
    (replacement,) = world.starting()
    assert [helper] == world.running()

    world.ready(replacement)

    assert [helper] == world.draining()
    assert (1, [replacement]) == world.routed()


def test_a_deployment_has_one_helper_however_many_replicas_are_blocked(world: World) -> None:
    replicas = up(world, num_replicas=3)

    for replica in replicas:
        world.blocked(replica, 11.0)
    (helper,) = world.starting()
    world.ready(helper)
    world.blocked(helper, 11.0)
    world.advance(20.0)

    assert 4 == len(world.running())
    assert [] == world.starting()


def test_a_deployment_that_holds_a_resource_gets_no_help(world: World) -> None:
    (replica,) = up(world, resources=ResourceRequest(num_gpus=1.0))

    world.blocked(replica, 11.0)
    world.advance(20.0)

    assert [] == world.starting()


def test_a_helper_that_dies_is_replaced_while_help_is_needed(world: World) -> None:
    (replica,) = up(world)
    world.blocked(replica, 11.0)
    (helper,) = world.starting()
    world.ready(helper)

    world.ended(helper)

    assert 1 == len(world.starting())


def test_helpers_leave_with_their_revision(world: World) -> None:
    (replica,) = up(world)
    world.blocked(replica, 11.0)
    (helper,) = world.starting()
    world.ready(helper)

    world.deploy(application())
    world.ready(*world.starting(revision=2))

    assert {replica, helper} == set(world.draining())


def test_status_says_who_is_blocked_and_where(world: World) -> None:
    first, _ = up(world, num_replicas=2)

    world.blocked(first, 4.0)

    overview = world.status().deployments["Main"]
    assert DeploymentStatus.HEALTHY == overview.status
    assert "its loop is blocked for 4 s at app.py:30" in overview.message
    assert "its loop is blocked" in world.status().message


def test_an_application_whose_replicas_are_all_stuck_is_not_running(world: World) -> None:
    (replica,) = up(world)

    world.blocked(replica, 4.0)
    assert ApplicationStatus.UNHEALTHY == world.status().status
    world.well(replica)

    assert ApplicationStatus.RUNNING == world.status().status
    assert "" == world.status().message


# ---- crash loops


def test_an_outside_kill_every_two_seconds_of_one_of_four_is_replaced_at_once_each_time(world: World) -> None:
    up(world, num_replicas=4)

    for _ in range(100):
        world.advance(2.0)
        world.ended(world.running()[0])
        (replacement,) = world.starting()
        world.ready(replacement)

    assert 4 == len(world.running())


def test_a_replica_that_dies_every_second_and_a_half_waits_longer_and_longer(world: World) -> None:
    (replica,) = up(world)
    began, deaths = world.now, 0
    pauses = []

    while world.now < began + 600.0:
        world.advance(1.5)
        world.ended(replica)
        deaths += 1
        since = world.now
        while not world.starting():
            world.advance(0.25)
        pauses.append(world.now - since)
        (replica,) = world.starting()
        world.ready(replica)

    assert [0.0] * 5 + [0.5, 1.0, 2.0, 4.0, 8.0, 10.0] == pauses[:11]
    assert {10.0} == set(pauses[10:])
    assert deaths < 65


def test_status_says_that_a_deployment_is_crash_looping(world: World) -> None:
    (replica,) = up(world)
    for _ in range(5):
        world.ended(replica)
        (replica,) = world.starting()
        world.ready(replica)
    assert "crash-looping" not in world.status().message

    world.ended(replica)

    assert "it is crash-looping" in world.status().message
    assert ApplicationStatus.UNHEALTHY == world.status().status


def test_a_crash_loop_is_over_when_replicas_live(world: World) -> None:
    (replica,) = up(world)
    for _ in range(8):
        world.ended(replica)
        world.advance(20.0)
        (replica,) = world.starting()
        world.ready(replica)

    world.advance(31.0)
    world.ended(replica)

    assert 1 == len(world.starting())


def test_replicas_that_die_together_share_one_pause(world: World) -> None:
    replicas = up(world, num_replicas=4)
    for _ in range(6):
        world.ended(*replicas)
        world.advance(0.6)
        replicas = world.starting()
        world.ready(*replicas)

    assert 4 == len(replicas)
    record = world.app().record("Main", 1)
    assert 1 == record.failures


def test_a_revision_whose_replicas_die_before_it_is_complete_is_given_up(world: World) -> None:
    world.deploy(application(deployment("Main"), deployment("Slow")))

    for _ in range(30):
        for replica in world.starting(deployment="Main"):
            world.ready(replica)
            world.ended(replica)
        world.advance(5.0)

    assert ApplicationStatus.DEPLOY_FAILED == world.status().status


def test_the_phase_of_a_given_up_replica_is_failed_until_it_ended(world: World) -> None:
    (replica,) = up(world)
    world.frozen(replica, 8.0)

    assert [replica] == world.ids(ReplicaPhase.FAILED)
    world.well(replica)
    assert [replica] == world.ids(ReplicaPhase.FAILED)
