"""Whatever happens in whatever order: the invariants hold, and when the world calms down, what is wanted is so."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.control.world import World, application, deployment
from trygon.control.events import ReplicaReconfigured, ReplicaReported, ReplicaUnplaced
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.spec.application import ResourceRequest
from trygon.spec.status import ApplicationStatus

NAMES = ("a", "b")
PRESS = ResourceRequest(resources={"press": 1})


class AnyOrder(RuleBasedStateMachine):
    """Users, replicas and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def pick(self, data: st.DataObject, *phases: ReplicaPhase) -> str | None:
        found = [r for name in NAMES for phase in phases for r in self.world.ids(phase, app=name)]
        return data.draw(st.sampled_from(sorted(found))) if found else None

    @rule(
        name=st.sampled_from(NAMES),
        count=st.integers(1, 3),
        exclusive=st.booleans(),
        surge=st.sampled_from([None, 0, 50]),
        config=st.integers(0, 2),
        declarative=st.booleans(),
    )
    def deploy(  # the dimensions of a deploy call
        self, name: str, count: int, exclusive: bool, surge: int | None, config: int, declarative: bool
    ) -> None:
        graph = (
            deployment(
                "Top",
                children=("Leaf",),
                num_replicas=count,
                max_surge_percent=surge,
                user_config=config,
            ),
            deployment("Leaf", resources=PRESS if exclusive else ResourceRequest()),
        )
        spec = application(*graph, name=name, route_prefix=f"/{name}")
        self.world.deploy(spec, declarative=declarative)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        self.world.delete(name)

    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        replica = self.pick(data, *ReplicaPhase)
        if replica:
            self.world.ready(replica)

    @rule(data=st.data(), number=st.integers(1, 9), error=st.sampled_from(["", "boom"]))
    def be_reconfigured(self, data: st.DataObject, number: int, error: str) -> None:
        replica = self.pick(data, *ReplicaPhase)
        if replica:
            owner = self.world.state.owner(replica)
            assert owner is not None
            # An answer may come late, twice, or after an older order than the newest.
            revision = min(number, owner.replicas[replica].asked)
            self.world.tell(ReplicaReconfigured(replica, revision, error))

    @rule(data=st.data())
    def report_broken(self, data: st.DataObject) -> None:
        replica = self.pick(data, *ReplicaPhase)
        if replica:
            self.world.tell(ReplicaReported(replica, "boom"))

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        replica = self.pick(data, *ReplicaPhase)
        if replica:
            self.world.ended(replica)

    @rule(data=st.data())
    def find_no_place(self, data: st.DataObject) -> None:
        replica = self.pick(data, ReplicaPhase.STARTING, ReplicaPhase.DRAINING)
        if replica and self.world.state.owner(replica).replicas[replica].pid == 0:  # type: ignore[union-attr]
            self.world.tell(ReplicaUnplaced(replica, "nothing is free"))

    @rule(data=st.data(), for_s=st.floats(0.0, 20.0), is_stopped=st.booleans())
    def freeze(self, data: st.DataObject, for_s: float, is_stopped: bool) -> None:
        replica = self.pick(data, *ReplicaPhase)
        if replica:
            self.world.frozen(replica, for_s, stopped=is_stopped)

    @rule(data=st.data(), for_s=st.floats(0.0, 200.0))
    def block(self, data: st.DataObject, for_s: float) -> None:
        replica = self.pick(data, *ReplicaPhase)
        if replica:
            self.world.blocked(replica, for_s)

    @rule(data=st.data())
    def recover(self, data: st.DataObject) -> None:
        replica = self.pick(data, *ReplicaPhase)
        if replica:
            self.world.well(replica)

    @rule(seconds=st.floats(0.01, 30.0))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self.world.tables)
    @rule()
    def serve(self) -> None:
        self.world.served()

    @invariant()
    def replicas_belong_to_a_kept_revision_or_leave(self) -> None:
        for found in self.world.state.applications.values():
            kept = {
                (name, revision.generation(name))
                for revision in (found.serving, found.wanted)
                if revision is not None
                for name in revision.by_name
            }
            for replica in found.replicas.values():
                if replica.phase is ReplicaPhase.STARTING:
                    assert (replica.launch.deployment, replica.launch.generation) in kept

    @invariant()
    def routes_lead_to_serving_revisions(self) -> None:
        if self.world.tables:
            for route in self.world.tables[-1].applications:
                found = self.world.app(route.app_name)
                # A first revision that failed is listed for the sake of its reason; it has no replica.
                shown = found.serving or (found.target if found.failure else None)
                assert shown is not None
                assert shown.number == route.revision

    def teardown(self) -> None:
        """Let everything that is asked for happen; the wanted must then be so."""
        world = self.world
        for _ in range(60):
            for name in NAMES:
                world.ended(*world.draining(app=name), *world.ids(ReplicaPhase.FAILED, app=name))
                world.ready(*world.starting(app=name))
                for replica in world.running(app=name):
                    world.well(replica)
                world.configured(*world.running(app=name))
            world.advance(30.0)
        if world.tables:
            world.served()
        for found in world.state.applications.values():
            status = world.status(found.name).status
            if found.failure:
                assert ApplicationStatus.DEPLOY_FAILED == status
            elif any(record.blocked for record in found.records.values()):
                # Nothing was given back in this world; it waits.
                assert ApplicationStatus.RUNNING != status or found.serving is not None
            else:
                assert ApplicationStatus.RUNNING == status, world.status(found.name)
                assert found.target is not None
                wanted = sum(d.options.num_replicas for d in found.target.spec.deployments)
                assert wanted == len(found.replicas)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
