"""The controller's decisions over whole lives: in any order everything settles, at any size a step stays small."""

from __future__ import annotations

import dataclasses
import doctest
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trygon.control.events import ReplicaEnded, ReplicaReported
from trygon.control.reconcile.status import application_status
from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec, ResourceRequest
from trygon.spec.status import ApplicationStatus
from trygon.testing import simulator as module
from trygon.testing.simulator import BROKEN, REFUSED, Habits, Simulator

NAMES = ("a", "b")


def chain(name: str, length: int = 2, *, code: bytes = b"", **options: Any) -> ApplicationSpec:
    """Return an application whose deployments call one another in a row."""
    deployments = tuple(
        DeploymentSpec(
            name=f"D{n}",
            app_name=name,
            definition=code,
            options=DeploymentOptions(**options),
            children=(f"D{n + 1}",) if n + 1 < length else (),
        )
        for n in range(length)
    )
    return ApplicationSpec(name=name, route_prefix=f"/{name}", ingress="D0", deployments=deployments)


# ---- any order


SURGES = st.sampled_from([None, 0, 25, 100])
# What fails is rare, or nothing would ever get far enough to be upgraded.
CONFIGS = st.sampled_from([None, 1, 2, 3, 1, 2, 3, REFUSED])
CODES = st.sampled_from([b"one", b"two", b"three", b"one", b"two", b"three", BROKEN])


class AnyLife(RuleBasedStateMachine):
    """Users, crashes, late news, restarted controllers and time, in any order."""

    @initialize(seed=st.integers(0, 1000), crashes=st.booleans())
    def begin(self, seed: int, crashes: bool) -> None:
        habits = Habits(mean_life_s=20.0 if crashes else None, capacity={"press": 2.0})
        self.simulator = Simulator(seed, habits)

    @rule(
        name=st.sampled_from(NAMES),
        declarative=st.booleans(),
        count=st.integers(1, 4),
        surge=SURGES,
        share=st.sampled_from([0.2, 0.5]),
        codes=st.tuples(CODES, CODES),
        config=CONFIGS,
        takes_press=st.booleans(),
    )
    def deploy(  # the dimensions of a deploy call
        self,
        name: str,
        declarative: bool,
        count: int,
        surge: int | None,
        share: float,
        codes: tuple[bytes, bytes],
        config: Any,
        takes_press: bool,
    ) -> None:
        spec = chain(
            name,
            num_replicas=count,
            max_surge_percent=surge,
            rolling_update_percentage=share,
            user_config=config,
            max_constructor_retry_count=3,
        )
        top, leaf = (
            msgspec.structs.replace(d, definition=code)
            for d, code in zip(spec.deployments, codes, strict=True)
        )
        if takes_press and name == "a":
            press = ResourceRequest(resources={"press": 1.0})
            options = msgspec.structs.replace(leaf.options, resources=press, num_replicas=min(count, 2))
            leaf = msgspec.structs.replace(leaf, options=options)
        self.simulator.deploy(msgspec.structs.replace(spec, deployments=(top, leaf)), declarative=declarative)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        self.simulator.delete(name)

    @rule(number=st.integers(0, 100))
    def crash(self, number: int) -> None:
        ids = self.simulator.replica_ids
        if ids:
            self.simulator.crash(ids[number % len(ids)])

    @rule(number=st.integers(0, 100))
    def report_again(self, number: int) -> None:
        ids = self.simulator.replica_ids
        if ids:
            self.simulator.repeat(ids[number % len(ids)])

    @rule(name=st.sampled_from(NAMES), error=st.sampled_from(["", "boom"]))
    def hear_of_one_that_is_gone(self, name: str, error: str) -> None:
        self.simulator.tell(ReplicaReported(f"{name}#D0#gone", error))
        self.simulator.tell(ReplicaEnded(f"{name}#D0#gone", "killed by SIGKILL"))

    @rule()
    def restart_controller(self) -> None:
        self.simulator.restart_controller()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.simulator.run_for(seconds)

    @rule(name=st.sampled_from(NAMES), surge=SURGES, declarative=st.booleans())
    def mend(self, name: str, surge: int | None, declarative: bool) -> None:
        """Deploy what can run, and give it time, so that the next deploy is an upgrade."""
        spec = chain(name, code=b"good", num_replicas=3, max_surge_percent=surge)
        self.simulator.deploy(spec, declarative=declarative)
        self.simulator.run_for(30.0)

    @rule()
    def jump_a_day_ahead(self) -> None:
        self.simulator.now += 86_400.0

    @invariant()
    def state_is_valid(self) -> None:
        if hasattr(self, "simulator"):
            self.simulator.state.validate()

    def teardown(self) -> None:
        """Whatever happened, a good file mends it, and then everything is as it is wanted."""
        if not hasattr(self, "simulator"):
            return
        simulator = self.simulator
        simulator.habits = dataclasses.replace(simulator.habits, mean_life_s=None)
        for name in NAMES:
            application = simulator.state.applications.get(name)
            if application is not None and not application.deleting:
                simulator.deploy(chain(name, code=b"good", num_replicas=2), declarative=True)
        simulator.settle()
        for name in simulator.state.applications:
            assert 2 == simulator.num_ready(name, "D0") == simulator.num_ready(name, "D1")
            assert ApplicationStatus.RUNNING == application_status(simulator.state.applications[name]).status


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


# ---- one life at a time


@pytest.mark.parametrize("surge", [None, 0, 25])
def test_broken_code_is_given_up_and_what_served_serves_on(surge: int | None) -> None:
    simulator = Simulator(1)
    simulator.deploy(chain("a", num_replicas=4, max_surge_percent=surge))
    simulator.settle()

    simulator.deploy(
        chain("a", code=BROKEN, num_replicas=4, max_surge_percent=surge, max_constructor_retry_count=2)
    )
    simulator.settle()

    application = simulator.state.applications["a"]
    assert "no weights" in application_status(application).message
    assert application.serving is not None
    assert 1 == application.serving.number
    assert 4 == simulator.num_ready("a", "D0") == simulator.num_ready("a", "D1")


@pytest.mark.parametrize("surge", [None, 0, 25])
@pytest.mark.parametrize("pause_s", [0.0, 0.2, 1.0, 3.0, 10.0])
def test_restarted_controller_goes_on_with_a_rollout(surge: int | None, pause_s: float) -> None:
    simulator = Simulator(2)
    spec = chain("a", num_replicas=4, max_surge_percent=surge)
    simulator.deploy(spec)
    simulator.settle()
    simulator.deploy(spec)
    simulator.run_for(pause_s)

    simulator.restart_controller()
    simulator.settle()

    serving = simulator.state.applications["a"].serving
    assert serving is not None
    assert 2 == serving.number
    assert 16 == simulator.num_actions["StartReplica"], "nothing was started twice"


def test_same_seed_gives_the_same_run() -> None:
    runs = []
    for _ in range(2):
        simulator = Simulator(7, Habits(mean_life_s=5.0))
        simulator.deploy(chain("a", num_replicas=5))
        simulator.run_for(30.0)
        runs.append((simulator.num_events, simulator.num_actions, simulator.replica_ids))

    assert runs[0] == runs[1]


def test_example_runs() -> None:
    result = doctest.testmod(module)

    assert 0 == result.failed
    assert result.attempted > 0


def test_what_does_not_settle_is_named() -> None:
    simulator = Simulator(1)
    simulator.deploy(chain("a"))

    with pytest.raises(AssertionError, match="a: DEPLOYING"):
        simulator.settle(timeout_s=0.0001)


# ---- size


def test_many_applications_settle_through_updates_and_crashes() -> None:
    simulator = Simulator(3, Habits(mean_life_s=100.0))
    names = [f"app-{n:02}" for n in range(20)]
    surges = [None, 0, 25]
    for turn in range(3):
        for number, name in enumerate(names):
            spec = chain(name, 5, num_replicas=4, max_surge_percent=surges[number % 3], user_config=turn)
            simulator.deploy(spec, declarative=turn == 1)
        simulator.run_for(2.0)

    simulator.settle()

    assert 400 == sum(simulator.num_ready(name, f"D{n}") for name in names for n in range(5))
    assert {1, 2, 3} == {a.last_revision for a in simulator.state.applications.values()} | {1, 2}


@pytest.mark.parametrize("count", [5, 50])
def test_work_of_a_crash_does_not_grow_with_the_number_of_applications(count: int) -> None:
    simulator = Simulator(4)
    for n in range(count):
        simulator.deploy(chain(f"app-{n:03}", num_replicas=2))
    simulator.settle()
    reconciled, events = simulator.core.num_reconciled, simulator.num_events

    simulator.crash(simulator.replica_ids[0])
    simulator.run_for(5.0)

    assert 3 == simulator.num_events - events, "it ended, another one runs, and is ready"
    assert simulator.core.num_reconciled - reconciled <= 4
