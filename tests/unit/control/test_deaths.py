"""Why a replica died: only what is certainly its own doing may be held against a request."""

from __future__ import annotations

import signal

import pytest

from tests.unit.control.world import World, application, deployment
from trygon.control.deaths import death_cause
from trygon.control.events import ReplicaEnded
from trygon.spec.routing import DeathCause, ReplicaDeath


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_a_replica_that_leaves_unasked_did_so_itself(code: int) -> None:
    assert DeathCause.OWN is death_cause(code, None, is_told=False)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE"])
@pytest.mark.parametrize("is_told", [True, False])
def test_a_fault_is_its_own_doing(name: str, is_told: bool) -> None:
    assert DeathCause.OWN is death_cause(None, signal.Signals[name], is_told=is_told)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_that_others_send_is_not(name: str) -> None:
    assert DeathCause.OUTSIDE is death_cause(None, signal.Signals[name], is_told=False)


def test_a_kill_for_want_of_memory_is_told_apart_when_it_is_known() -> None:
    assert DeathCause.OUT_OF_MEMORY is death_cause(None, signal.SIGKILL, is_told=False, is_out_of_memory=True)


def test_leaving_as_told_is_no_death() -> None:
    assert death_cause(0, None, is_told=True) is None
    assert DeathCause.OWN is death_cause(3, None, is_told=True)
    assert DeathCause.OUTSIDE is death_cause(None, signal.SIGKILL, is_told=True)


def test_a_process_that_was_never_there_is_nobodys_doing() -> None:
    assert DeathCause.OUTSIDE is death_cause(None, None, is_told=False)


def test_the_table_tells_who_died_of_what_and_keeps_it_bounded() -> None:
    world = World()
    world.deploy(application(deployment("Main", num_replicas=2)))
    world.ready(*world.starting())
    one, other = world.running()

    world.tell(ReplicaEnded(one, "exit code 3", DeathCause.OWN))
    world.tell(ReplicaEnded(other, "killed by SIGKILL", DeathCause.OUTSIDE))

    assert (
        ReplicaDeath(one, DeathCause.OWN),
        ReplicaDeath(other, DeathCause.OUTSIDE),
    ) == world.tables[-1].deaths
    for _ in range(100):
        world.ready(*world.starting())
        for replica_id in world.running():
            world.tell(ReplicaEnded(replica_id, "exit code 3", DeathCause.OWN))
        world.advance(20.0)
    assert 64 == len(world.tables[-1].deaths)


def test_who_failed_to_start_is_not_told() -> None:
    world = World()
    world.deploy(application())

    world.ended(*world.starting())

    assert () == world.tables[-1].deaths
