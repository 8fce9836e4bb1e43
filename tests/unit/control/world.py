"""The controller's pure core in virtual time: events go in, actions come out, nothing runs."""

from __future__ import annotations

from typing import Any

from trygon.control.actions import (
    Action,
    AskPolicy,
    CompleteRevision,
    DrainReplica,
    FailRevision,
    ForgetApplication,
    GiveUpReplica,
    KillReplica,
    ReconfigureReplica,
    ResizeDeployment,
    StartReplica,
)
from trygon.control.core import Core
from trygon.control.events import (
    ApplicationDeleted,
    ApplicationDeployed,
    ApplicationForgotten,
    CallerLost,
    DeploymentScaled,
    Event,
    LoadReported,
    PolicyAsked,
    ReplicaEnded,
    ReplicaGivenUp,
    ReplicaKilled,
    ReplicaLeaving,
    ReplicaObserved,
    ReplicaReconfigured,
    ReplicaReconfiguring,
    ReplicaReported,
    ReplicaRequested,
    ReplicaUnplaced,
    RevisionCompleted,
    RevisionFailed,
    TableServed,
    Woken,
)
from trygon.control.reconcile.change import next_revision
from trygon.control.reconcile.replica import ReplicaPhase, Trouble, TroubleKind
from trygon.control.reconcile.routing import build_table
from trygon.control.reconcile.status import application_status
from trygon.control.state import Application, Revision
from trygon.spec.application import ApplicationSpec, CodeLocation, DeploymentOptions, DeploymentSpec
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.load import DeploymentLoad
from trygon.spec.routing import RoutingTable
from trygon.spec.status import ApplicationStatusOverview


def deployment(name: str, *, children: tuple[str, ...] = (), **options: Any) -> DeploymentSpec:
    return DeploymentSpec(
        name=name, app_name="app", definition=b"", options=DeploymentOptions(**options), children=children
    )


def application(
    *deployments: DeploymentSpec, name: str = "app", route_prefix: str | None = "/"
) -> ApplicationSpec:
    chosen = deployments or (deployment("Main"),)
    return ApplicationSpec(name=name, route_prefix=route_prefix, ingress=chosen[0].name, deployments=chosen)


class World:
    """A controller without a shell; replicas do what the test tells them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.core = Core(self._run, lambda: self.now)
        self.state = self.core.state
        #: Every action so far.
        self.actions: list[Action] = []
        self.tables: list[RoutingTable] = []
        self._count = 0
        self._numbers: dict[str, int] = {}

    # ---- what users do

    def deploy(self, *specs: ApplicationSpec, declarative: bool = False) -> None:
        for spec in specs:
            known = self.state.applications.get(spec.name)
            number = (known.last_revision if known else self._numbers.get(spec.name, 0)) + 1
            revision = next_revision(known, Revision(number=number, spec=spec), declarative=declarative)
            if revision is not None:
                self._numbers[spec.name] = number
                self.tell(ApplicationDeployed(spec.name, revision))

    def apply(self, *specs: ApplicationSpec) -> None:
        """Deploy as a configuration file does."""
        self.deploy(*specs, declarative=True)

    def delete(self, name: str = "app") -> None:
        self.tell(ApplicationDeleted(name))

    # ---- what replicas do

    def ready(self, *replica_ids: str) -> None:
        self.tell(*(ReplicaReported(replica_id) for replica_id in replica_ids))

    def broken(self, replica_id: str, error: str = "boom") -> None:
        """Let a replica say that it is broken, and end."""
        self.tell(ReplicaReported(replica_id, error))
        self.tell(ReplicaEnded(replica_id, "exit code 1"))

    def ended(self, *replica_ids: str, reason: str = "killed by SIGKILL") -> None:
        self.tell(*(ReplicaEnded(replica_id, reason) for replica_id in replica_ids))

    def blocked(self, replica_id: str, for_s: float = 0.0, where: str = "app.py:30") -> None:
        """Let a watchdog say that its replica's loop is blocked."""
        self._observe(replica_id, TroubleKind.BLOCKED, for_s, where=where)

    def frozen(self, replica_id: str, for_s: float = 0.0, *, stopped: bool = True) -> None:
        """Let the controller find that a process does nothing."""
        self._observe(replica_id, TroubleKind.FROZEN, for_s, stopped=stopped)

    def well(self, replica_id: str) -> None:
        """Let a watchdog say that its replica's loop comes round again."""
        self.tell(ReplicaObserved(replica_id, None))

    def _observe(self, replica_id: str, kind: TroubleKind, for_s: float, **rest: Any) -> None:
        trouble = Trouble(kind=kind, since=self.now - for_s, for_s=for_s, **rest)
        self.tell(ReplicaObserved(replica_id, trouble))

    def configured(self, *replica_ids: str, error: str = "") -> None:
        """Let replicas answer the newest Reconfigure."""
        for replica_id in replica_ids:
            owner = self.state.owner(replica_id)
            assert owner is not None
            self.tell(ReplicaReconfigured(replica_id, owner.replicas[replica_id].asked, error))

    # ---- what callers do

    def load(self, *, caller: str = "ingress", queued: float = 0, running: float = 0, **rest: Any) -> None:
        """Let a caller report its load for Main."""
        known = {"app_name": "app", "deployment": "Main", **rest}
        load = DeploymentLoad(queued=queued, running=running, period_s=1.0, **known)
        self.tell(LoadReported(caller, (load,)))

    def keep_load(self, seconds: float, **load: Any) -> None:
        """Let time pass while a caller reports the same load each second."""
        for _ in range(round(seconds)):
            self.load(**load)
            self.advance(1.0)

    def lose(self, caller: str) -> None:
        self.tell(CallerLost(caller))

    def count(self, deployment: str = "Main") -> int:
        """Return how many replicas are wanted."""
        found = self.app()
        assert found.serving is not None
        return found.count(found.serving, found.serving.by_name[deployment])

    def unplaced(self, replica_id: str) -> None:
        self.tell(ReplicaUnplaced(replica_id, "nothing is free"))

    def served(self) -> None:
        """Let every ingress apply the newest table."""
        self.tell(TableServed(self.tables[-1].version))

    # ---- looking

    def app(self, name: str = "app") -> Application:
        return self.state.applications[name]

    def ids(
        self, phase: ReplicaPhase | None = None, *, deployment: str = "", revision: int = 0, app: str = "app"
    ) -> list[str]:
        found = self.state.applications.get(app)
        return [
            r.replica_id
            for r in (found.replicas.values() if found else ())
            if phase in (None, r.phase)
            and deployment in ("", r.launch.deployment)
            and revision in (0, r.launch.revision)
        ]

    def starting(self, **where: Any) -> list[str]:
        return self.ids(ReplicaPhase.STARTING, **where)

    def running(self, **where: Any) -> list[str]:
        return self.ids(ReplicaPhase.READY, **where)

    def draining(self, **where: Any) -> list[str]:
        return self.ids(ReplicaPhase.DRAINING, **where)

    def status(self, name: str = "app") -> ApplicationStatusOverview:
        return application_status(self.app(name))

    def routed(self, name: str = "app") -> tuple[int, list[str]] | None:
        """Return the revision that requests go to, and its ingress deployment's replicas."""
        table = self.tables[-1]
        for route in table.applications:
            if route.app_name == name:
                for targets in table.deployments:
                    if (targets.app_name, targets.name, targets.revision) == (
                        name,
                        route.ingress,
                        route.revision,
                    ):
                        return route.revision, [target.replica_id for target in targets.replicas]
        return None

    def did(self, kind: type[Action]) -> list[Any]:
        return [action for action in self.actions if isinstance(action, kind)]

    # ---- time and the loop

    def advance(self, seconds: float) -> None:
        """Let time pass, waking whoever asked for it on the way."""
        end = self.now + seconds
        while (at := self.core.wakes.next()) is not None and at <= end:
            self.now = max(self.now, at)
            self.tell(Woken(self.core.wakes.take_due(self.now)))
            following = self.core.wakes.next()
            assert following is None or following > self.now, "who is woken asks for a later time, or none"
        self.now = end

    def tell(self, *events: Event) -> None:
        for event in events:
            self.core.tell(event)
            self.state.validate()
        self._publish()

    def _run(self, _: Application, action: Action) -> None:
        self.actions.append(action)
        self.state.validate()
        self.core.add(self._first_event(action))

    def _first_event(self, action: Action) -> Event:
        match action:
            case StartReplica():
                return ReplicaRequested(self._launch(action))
            case ReconfigureReplica():
                return ReplicaReconfiguring(action.replica_id, action.revision)
            case DrainReplica():
                return ReplicaLeaving(action.replica_id, self.now + action.timeout_s, action.reason)
            case KillReplica():
                return ReplicaKilled(action.replica_id)
            case GiveUpReplica():
                return ReplicaGivenUp(action.replica_id, action.reason)
            case ResizeDeployment():
                return DeploymentScaled(
                    action.app_name, action.deployment, action.revision, action.decision, action.window
                )
            case AskPolicy():
                return PolicyAsked(action.app_name, action.revision, action.owner)
            case CompleteRevision():
                return RevisionCompleted(action.app_name, action.number)
            case FailRevision():
                return RevisionFailed(action.app_name, action.number, action.deployment, action.error)
            case ForgetApplication():
                return ApplicationForgotten(action.name)

    def _launch(self, action: StartReplica) -> ReplicaLaunch:
        found = self.app(action.app_name)
        revision = next(
            r for r in (found.target, found.serving) if r is not None and r.number == action.revision
        )
        spec = revision.spec.deployment(action.deployment)
        self._count += 1
        tag = f"{self._count:04}"
        return ReplicaLaunch(
            replica_id=f"{action.app_name}#{action.deployment}#{tag}",
            app_name=action.app_name,
            deployment=action.deployment,
            revision=action.revision,
            is_ingress=action.deployment == revision.spec.ingress,
            route_prefix=revision.spec.route_prefix,
            definition=b"",
            options=spec.options,
            code=CodeLocation(),
            address=f"/{tag}.sock",
            controller_address="/controller.sock",
            log_path="",
            rank=action.rank,
            world_size=max(spec.options.num_replicas, action.rank + 1),
            is_helper=action.helper,
            parents=revision.parents(action.deployment),
            generations={name: revision.generation(name) for name in revision.by_name},
            joins=action.joins,
        )

    def _publish(self) -> None:
        version = self.tables[-1].version if self.tables else 0
        table = self.core.routes.table(version)
        assert table == build_table(self.state, version), "what changed is made anew"
        if not self.tables or table != self.tables[-1]:
            table = self.core.routes.table(version + 1)
            self.tables.append(table)
            self.core.mark_routed(table.version)
