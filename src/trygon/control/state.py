"""What the controller knows: applications, their revisions and replicas. Changed only by `control.fold`."""

from __future__ import annotations

from collections import deque

import msgspec

from trygon.control.reconcile.replica import LIVE, ReplicaPhase, Trouble
from trygon.spec.application import ApplicationSpec, DeploymentSpec
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.routing import ReplicaDeath

__all__ = ["Application", "ControllerState", "Replica", "Revision", "StartRecord"]

#: Entries of the decision log of each deployment, and characters of one; a traceback may be long.
_LOG_LENGTH = 200
_LOG_CHARACTERS = 500
#: A caller that reads slowly may skip tables; with so many in each it still hears of all deaths but in a storm.
_NUM_DEATHS = 64


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """A numbered, immutable specification of an application."""

    number: int
    spec: ApplicationSpec
    deployed_wall_s: float = 0.0
    #: The caller's token of the deploy call that made it.
    token: str = ""
    #: What asked for it; for people.
    origin: str = ""
    #: Things the user should know, by deployment; shown in the status.
    notes: dict[str, str] = {}

    def parents(self, deployment: str) -> tuple[str, ...]:
        """Return the deployments that hold handles of `deployment`."""
        return tuple(d.name for d in self.spec.deployments if deployment in d.children)


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One replica at one moment."""

    #: Its definition is left out.
    launch: ReplicaLaunch
    phase: ReplicaPhase
    #: Monotonic time of the last change of phase.
    since: float
    started_at: float
    pid: int = 0
    #: When a draining or failed replica is killed; None when nothing is due.
    deadline: float | None = None
    #: Why it is on its way out; for people.
    reason: str = ""
    #: What ails it; None while it is well, starting, or nothing is known.
    trouble: Trouble | None = None
    #: True once it was found beyond help, and the engine was told to end it.
    given_up: bool = False

    @property
    def replica_id(self) -> str:
        """Its unique name."""
        return self.launch.replica_id

    @property
    def live(self) -> bool:
        """True while it counts towards the wanted number."""
        return self.phase in LIVE


class StartRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How starting went for one deployment of one revision."""

    #: Failed starts in a row, or pauses in a row between the deaths of a crash loop.
    failures: int = 0
    error: str = ""
    #: Monotonic; no start before it.
    retry_at: float = 0.0
    #: Why the last start found no place; empty when resources are not the problem.
    blocked: str = ""
    #: True when the last failure was a replica that had been ready.
    crashed: bool = False
    #: When replicas that had been ready ended unasked, oldest first; those of the last while only.
    deaths: tuple[float, ...] = ()


class Application:
    """One application: what is wanted of it, what serves, and its replicas."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: The newest revision that was asked for; None once it is being deleted.
        self.target: Revision | None = None
        #: The revision that requests from outside go to; None before the first is complete.
        self.serving: Revision | None = None
        #: Why `target` was given up; empty while it has not failed.
        self.failure: str = ""
        #: The deployment that made `target` fail.
        self.failed_deployment: str = ""
        self.deleting = False
        #: Numbers are never given twice.
        self.last_revision = 0
        #: Every replica whose process may still be there, by id; none is STOPPED.
        self.replicas: dict[str, Replica] = {}
        #: By (deployment, revision number).
        self.records: dict[tuple[str, int], StartRecord] = {}
        #: Version of the first routing table in which `serving` takes requests; 0 when not published yet.
        self.routed_version = 0
        #: True once every ingress applied `routed_version`.
        self.served = False
        #: What was decided and why, by deployment: (monotonic, text).
        self.log: dict[str, deque[tuple[float, str]]] = {}

    @property
    def wanted(self) -> Revision | None:
        """The target while there is hope for it."""
        return None if self.deleting or self.failure else self.target

    def record(self, deployment: str, revision: int) -> StartRecord:
        """Return how starting went so far."""
        return self.records.get((deployment, revision), _NOTHING_YET)

    def of(self, deployment: str, revision: int) -> list[Replica]:
        """Return the replicas of one deployment of one revision."""
        return [
            r
            for r in self.replicas.values()
            if r.launch.deployment == deployment and r.launch.revision == revision
        ]

    def ready_count(self, deployment: DeploymentSpec, revision: int) -> int:
        """Return how many replicas take requests."""
        return sum(1 for r in self.of(deployment.name, revision) if r.phase is ReplicaPhase.READY)

    def note(self, now: float, deployment: str, text: str) -> None:
        """Write one line into the decision log."""
        if deployment not in self.log:
            self.log[deployment] = deque(maxlen=_LOG_LENGTH)
        self.log[deployment].append((now, text[:_LOG_CHARACTERS]))

    def validate(self) -> None:
        """Assert what must always hold; tests call it after every step."""
        numbers = {r.number for r in (self.target, self.serving) if r is not None}
        assert self.last_revision >= max(numbers, default=0), "a revision number was given twice"
        assert not (self.deleting and self.target), "a deleted application wants nothing"
        assert not (self.failed_deployment and not self.failure), "a failure has a reason"
        assert not (self.served and self.serving is None), "what serves is a revision"
        for replica_id, replica in self.replicas.items():
            assert replica_id == replica.replica_id, "a replica is filed under its id"
            assert replica.phase is not ReplicaPhase.STOPPED, "a stopped replica is forgotten"
            assert replica.launch.app_name == self.name, "a replica belongs to its application"
            leaving = replica.phase in (ReplicaPhase.DRAINING, ReplicaPhase.FAILED)
            assert not (replica.deadline is not None and not leaving), "only who leaves has a deadline"
        for revision in (self.target, self.serving):
            if revision is None:
                continue
            for deployment in revision.spec.deployments:
                live = [r for r in self.of(deployment.name, revision.number) if r.live]
                helpers = [r for r in live if r.launch.is_helper]
                wanted = deployment.options.num_replicas + len(helpers)
                assert len(live) <= wanted, "no more replicas than wanted"
                assert len(helpers) <= 1, "no more than one helper"
                ranks = [r.launch.rank for r in live]
                assert len(set(ranks)) == len(ranks), "ranks are unique"


_NOTHING_YET = StartRecord()


class ControllerState:
    """Everything the controller knows."""

    def __init__(self) -> None:
        self.applications: dict[str, Application] = {}
        #: The last replicas that died while they served, oldest first; told to their callers.
        self.deaths: deque[ReplicaDeath] = deque(maxlen=_NUM_DEATHS)

    def owner(self, replica_id: str) -> Application | None:
        """Return the application of a replica that is known, or None."""
        application = self.applications.get(replica_id.split("#", 1)[0])
        return application if application is not None and replica_id in application.replicas else None

    def validate(self) -> None:
        """Assert the invariants of every application."""
        for name, application in self.applications.items():
            assert name == application.name, "an application is filed under its name"
            application.validate()
