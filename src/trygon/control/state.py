"""What the controller knows: applications, their revisions and replicas. Changed only by `control.fold`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping
from functools import cached_property
from typing import Any

import msgspec

from trygon.control.reconcile.replica import LIVE, ReplicaPhase, Trouble
from trygon.control.scaler import Scaler
from trygon.spec.application import ApplicationSpec, DeploymentSpec
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.routing import HttpTimeouts, ReplicaDeath

__all__ = ["Application", "ControllerState", "Replica", "Replicas", "Revision", "StartRecord"]

#: Entries of the decision log of each deployment, and characters of one; a traceback may be long.
_LOG_LENGTH = 200
_LOG_CHARACTERS = 500
#: A caller that reads slowly may skip tables; with so many in each it still hears of all deaths but in a storm.
_NUM_DEATHS = 64


class Revision(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A numbered, immutable specification of an application."""

    number: int
    spec: ApplicationSpec
    deployed_wall_s: float = 0.0
    #: The caller's token of the deploy call that made it.
    token: str = ""
    #: What asked for it; for people.
    origin: str = ""
    #: The revision of which this is another size, as an external scaler asked for; 0 for all others.
    scales: int = 0
    #: Things the user should know, by deployment; shown in the status.
    notes: dict[str, str] = {}
    #: By deployment, the revision that brought its code; replicas of the same generation are interchangeable.
    generations: dict[str, int] = {}
    #: By deployment, the revision that last changed what its replicas take in place.
    configs: dict[str, int] = {}
    #: By deployment whose number of replicas this revision changed in place: the number before.
    resized_from: dict[str, int] = {}
    #: The deployments whose code comes in batches. Decided when it is first asked for: replicas that were
    #: started to take requests only when all are ready do not begin to in the middle, nor the other way round.
    batched: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, DeploymentSpec]:
        """Its deployments; an application may have hundreds, and every step asks."""
        return {deployment.name: deployment for deployment in self.spec.deployments}

    def generation(self, deployment: str) -> int:
        """Return the number of the revision that brought the code of `deployment`."""
        return self.generations.get(deployment, self.number)

    def config(self, deployment: str) -> int:
        """Return the number of the revision that last changed `deployment` in place."""
        return self.configs.get(deployment, self.number)

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
    #: What is built before it can start; of interest only while it is starting.
    delay: str = ""
    #: What ails it; None while it is well, starting, or nothing is known.
    trouble: Trouble | None = None
    #: True once it was found beyond help, and the engine was told to end it.
    given_up: bool = False
    #: The revision whose options it has.
    configured: int = 0
    #: The newest revision whose options it was told to take; `configured` follows.
    asked: int = 0
    #: Why it could not take them; empty when it could.
    config_error: str = ""

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


class Replicas(MutableMapping[str, Replica]):
    """Replicas by id, and by deployment and generation: a step for one deployment looks at no other's."""

    def __init__(self) -> None:
        self._by_id: dict[str, Replica] = {}
        #: By deployment, then generation, then id; no group is empty.
        self._groups: dict[str, dict[int, dict[str, Replica]]] = {}

    def __getitem__(self, replica_id: str) -> Replica:
        return self._by_id[replica_id]

    def __setitem__(self, replica_id: str, replica: Replica) -> None:
        self._by_id[replica_id] = replica
        groups = self._groups.setdefault(replica.launch.deployment, {})
        groups.setdefault(replica.launch.generation, {})[replica_id] = replica

    def __delitem__(self, replica_id: str) -> None:
        replica = self._by_id.pop(replica_id)
        name, generation = replica.launch.deployment, replica.launch.generation
        groups = self._groups[name]
        del groups[generation][replica_id]
        if not groups[generation]:
            del groups[generation]
        if not groups:
            del self._groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)

    def of(self, deployment: str, generation: int) -> Iterable[Replica]:
        """Return the replicas of one generation of a deployment, oldest first."""
        return self._groups.get(deployment, {}).get(generation, {}).values()

    def generations(self, deployment: str) -> Iterable[int]:
        """Return the generations of a deployment that have replicas."""
        return self._groups.get(deployment, {}).keys()

    def groups(self) -> Iterator[tuple[str, int]]:
        """Yield every (deployment, generation) that has replicas."""
        for name, groups in self._groups.items():
            for generation in groups:
                yield name, generation


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
        self.replicas = Replicas()
        #: By (deployment, generation).
        self.records: dict[tuple[str, int], StartRecord] = {}
        #: Version of the first routing table in which `serving` takes requests; 0 when not published yet.
        self.routed_version = 0
        #: True once every ingress applied `routed_version`.
        self.served = False
        #: By (deployment, revision): what scales with its load. Revisions with the same options share one.
        self.scalers: dict[tuple[str, int], Scaler] = {}
        #: Of routers of the user's that fail: by deployment and caller, how many requests they did not route, and why.
        self.router_troubles: dict[tuple[str, str], tuple[int, str]] = {}
        #: What was decided and why, by deployment: (monotonic, text).
        self.log: dict[str, deque[tuple[float, str]]] = {}

    @property
    def wanted(self) -> Revision | None:
        """The target while there is hope for it."""
        return None if self.deleting or self.failure else self.target

    @property
    def goal(self) -> Revision | None:
        """The revision that everything moves to: the target, or the serving one when the target was given up."""
        return None if self.deleting else self.wanted or self.serving

    def scaler(self, revision: Revision, deployment: str) -> Scaler | None:
        """Return what scales a deployment of a revision with its load; None where the number is fixed."""
        return self.scalers.get((deployment, revision.number))

    def count(self, revision: Revision, deployment: DeploymentSpec) -> int:
        """Return how many replicas a deployment of a revision shall have now."""
        scaler = self.scalers.get((deployment.name, revision.number))
        return deployment.options.num_replicas if scaler is None else scaler.count

    def router_trouble(self, deployment: str) -> str:
        """Return what is wrong with the router of a deployment; empty when all is well."""
        found = [told for (name, _), told in self.router_troubles.items() if name == deployment]
        if not found:
            return ""
        count = sum(number for number, _ in found)
        reason = found[-1][1].strip().rpartition("\n")[2]
        return f"the request router failed for {count} requests, which went by power of two choices: {reason}"

    def record(self, deployment: str, generation: int) -> StartRecord:
        """Return how starting went so far."""
        return self.records.get((deployment, generation), _NOTHING_YET)

    def of(self, deployment: str, generation: int) -> list[Replica]:
        """Return the replicas of one generation of a deployment."""
        return list(self.replicas.of(deployment, generation))

    def ready_count(self, deployment: DeploymentSpec, generation: int) -> int:
        """Return how many replicas of a generation are ready."""
        return sum(1 for r in self.replicas.of(deployment.name, generation) if r.phase is ReplicaPhase.READY)

    def serves(self, replica: Replica) -> bool:
        """Whether a replica takes requests of the serving revision while it is ready.

        Those of its own generation do, and those of a newer revision that join them during an update in batches.
        """
        serving, launch = self.serving, replica.launch
        if serving is None or launch.deployment not in serving.by_name:
            return False
        is_own = launch.generation == serving.generation(launch.deployment)
        return is_own or (launch.joins and launch.revision > serving.number)

    def rotation(self, deployment: str) -> list[Replica]:
        """Return the replicas that take the requests of the serving revision."""
        return [
            replica
            for generation in self.replicas.generations(deployment)
            for replica in self.replicas.of(deployment, generation)
            if replica.phase is ReplicaPhase.READY and self.serves(replica)
        ]

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
            assert replica.configured <= max(replica.asked, replica.launch.revision), "options are asked for"
        for deployment, generation in self.replicas.groups():
            live = [r for r in self.replicas.of(deployment, generation) if r.live]
            assert sum(1 for r in live if r.launch.is_helper) <= 1, "no more than one helper"
            ranks = [r.launch.rank for r in live if not r.launch.is_helper]
            assert len(set(ranks)) == len(ranks), "ranks are unique"


_NOTHING_YET = StartRecord()


class ControllerState:
    """Everything the controller knows."""

    def __init__(self) -> None:
        self.applications: dict[str, Application] = {}
        #: Percentage that the numbers of replicas of configurations are scaled by; None leaves them alone.
        self.target_capacity: float | None = None
        #: Those that were asked for since the instance was started; None while none were.
        self.http_timeouts: HttpTimeouts | None = None
        #: The LoggingConfig of the instance as JSON values, for applications that have none.
        self.logging: dict[str, Any] | None = None
        #: Where the sockets of helpers are.
        self.runtime_dir = ""
        #: The last replicas that died while they served, oldest first; told to their callers.
        self.deaths: deque[ReplicaDeath] = deque(maxlen=_NUM_DEATHS)
        #: Applications of which a deployment may wait for resources; no other one does.
        self.waiting: set[str] = set()
        #: Applications whose serving revision not every ingress routes by yet.
        self.unserved: set[str] = set()
        #: The newest version of the table that every ingress routes by; 0 while one has none.
        self.served_version = 0

    def owner(self, replica_id: str) -> Application | None:
        """Return the application of a replica that is known, or None."""
        application = self.applications.get(replica_id.split("#", 1)[0])
        return application if application is not None and replica_id in application.replicas else None

    def validate(self) -> None:
        """Assert the invariants of every application."""
        for name, application in self.applications.items():
            assert name == application.name, "an application is filed under its name"
            blocked = any(record.blocked for record in application.records.values())
            assert not blocked or name in self.waiting, "who waits for resources is known"
            unserved = application.serving is not None and not application.served
            assert not unserved or name in self.unserved, "who is not served yet is known"
            application.validate()
