"""The controller's own decisions in virtual time: thousands of replicas, no process, no socket, no waiting.

The simulator runs the code that the controller runs. What it fakes is the world around it: an engine whose
replicas start after a while, serve, crash by chance, and leave when they are told to. The same seed gives the
same run.

Example:
    >>> from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec
    >>> main = DeploymentSpec(
    ...     name="Main", app_name="app", definition=b"", options=DeploymentOptions(num_replicas=3)
    ... )
    >>> simulator = Simulator(seed=1)
    >>> simulator.deploy(ApplicationSpec(name="app", ingress="Main", deployments=(main,)))
    >>> simulator.settle()
    >>> simulator.num_ready("app", "Main")
    3
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
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
    DeploymentScaled,
    Event,
    PolicyAsked,
    ReplicaAdopted,
    ReplicaEnded,
    ReplicaGivenUp,
    ReplicaKilled,
    ReplicaLeaving,
    ReplicaReconfigured,
    ReplicaReconfiguring,
    ReplicaReported,
    ReplicaRequested,
    ReplicaRunning,
    ReplicaUnplaced,
    RevisionCompleted,
    RevisionFailed,
    TableServed,
    Woken,
)
from trygon.control.reconcile.change import next_revision
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.reconcile.status import application_status
from trygon.control.scaling import restore_scalers
from trygon.control.state import Application, ControllerState, Revision
from trygon.spec.application import ApplicationSpec
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.status import ApplicationStatus

__all__ = ["BROKEN", "REFUSED", "Habits", "Simulator"]

#: A definition whose replicas fail to start.
BROKEN = b"broken"
#: A user_config that every replica refuses.
REFUSED = "refused"

#: Between a table and the last ingress that routes by it, and between a kill and its news.
_NEWS_S = 0.001


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How the simulated replicas behave; each range is (shortest, longest)."""

    start_s: tuple[float, float] = (0.05, 2.0)
    #: How long a replica takes to leave.
    leave_s: tuple[float, float] = (0.0, 1.0)
    #: Mean time until a ready replica crashes; None never crashes one.
    mean_life_s: float | None = None
    #: What can be held exclusively, by name; what is not here is endless.
    capacity: dict[str, float] = field(default_factory=dict)


@dataclass
class _Process:
    launch: ReplicaLaunch
    pid: int
    is_ready: bool = False
    #: What a controller last wrote beside it.
    mark: ReplicaPhase = ReplicaPhase.STARTING


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """One application as it survives a restart of the controller."""

    target: Revision | None
    serving: Revision | None
    failure: str
    failed_deployment: str
    deleting: bool
    last_revision: int


class Simulator:
    """A controller, an engine and their replicas in virtual time.

    Args:
        seed: Decides all that happens by chance.
        habits: How replicas behave.
    """

    def __init__(self, seed: int = 0, habits: Habits = Habits()) -> None:
        #: Virtual monotonic time.
        self.now = 1000.0
        self.habits = habits
        #: How many events have been folded because something happened in the world.
        self.num_events = 0
        #: How often each kind of action was run.
        self.num_actions: dict[str, int] = {}
        self.core = Core(self._run, lambda: self.now)
        self._random = random.Random(seed)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._processes: dict[str, _Process] = {}
        #: Replicas that were told to leave; the rotation is checked without them.
        self._told: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._saved: dict[str, _Saved] = {}
        #: Not on disk yet: what a controller that dies now loses.
        self._unsaved: set[str] = set()
        self._version = 0
        self._is_news_due = False

    # ---- what users do

    @property
    def state(self) -> ControllerState:
        """What the controller knows."""
        return self.core.state

    def deploy(self, spec: ApplicationSpec, *, declarative: bool = False) -> None:
        """Ask for a revision of an application, as `serve.run` or as a configuration file does."""
        known = self.state.applications.get(spec.name)
        number = self._numbers.get(spec.name, 0) + 1
        asked = Revision(number=number, spec=spec)
        revision = next_revision(known, asked, declarative=declarative)
        if revision is not None:
            self._numbers[spec.name] = number
            self._tell(ApplicationDeployed(spec.name, revision))
            self._save(spec.name)

    def delete(self, name: str) -> None:
        """Ask for an application to go."""
        self._tell(ApplicationDeleted(name))
        self._save(name)

    # ---- what the world does

    @property
    def replica_ids(self) -> list[str]:
        """Return the replicas whose processes run, oldest first."""
        return list(self._processes)

    def crash(self, replica_id: str) -> None:
        """End a replica's process now."""
        if self._processes.pop(replica_id, None) is not None:
            self._tell(ReplicaEnded(replica_id, "killed by SIGKILL"))

    def repeat(self, replica_id: str) -> None:
        """Let a replica say again what it said last, as over a new link."""
        process = self._processes.get(replica_id)
        if process is not None and process.is_ready:
            self._tell(ReplicaReported(replica_id))

    def tell(self, event: Event) -> None:
        """Let the controller hear of something, late or twice for instance."""
        self._tell(event)

    def restart_controller(self) -> None:
        """Let the controller die, and another one adopt what runs, from what was saved."""
        self.core = Core(self._run, lambda: self.now)
        self._told.clear()
        for name, saved in self._saved.items():
            application = Application(name)
            application.target = saved.target
            is_same = saved.target and saved.serving and saved.target.number == saved.serving.number
            application.serving = saved.target if is_same else saved.serving
            application.failure, application.failed_deployment = saved.failure, saved.failed_deployment
            application.deleting, application.last_revision = saved.deleting, saved.last_revision
            restore_scalers(application, self.now)
            self.state.applications[name] = application
            if application.serving is not None:
                self.state.unserved.add(name)
        for replica_id, process in list(self._processes.items()):
            self.core.add(ReplicaAdopted(process.launch, process.pid, process.mark))
            if process.mark is ReplicaPhase.DRAINING:
                self._told.add(replica_id)
        self._tell(Woken())
        for replica_id in list(self._processes):
            self.repeat(replica_id)

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while (at := self._next()) is not None and at <= end:
            self._step(at)
        self.now = max(self.now, end)

    def settle(self, timeout_s: float = 3600.0) -> None:
        """Let time pass until everything is as it is wanted.

        Raises:
            AssertionError: It is not after `timeout_s`; the message names what is missing.
        """
        end = self.now + timeout_s
        while True:
            unsettled = self._unsettled()
            if not unsettled:
                self.state.validate()
                return
            at = self._next()
            assert at is not None, f"nothing will happen any more, and not settled: {unsettled}"
            assert at <= end, f"not settled after {timeout_s:g} s: {unsettled}"
            # Looking at everything is dear; so it is done once a virtual second.
            pause = max(at, self.now + 1.0)
            while (at := self._next()) is not None and at <= pause:
                self._step(at)
            self.now = max(self.now, pause)

    # ---- looking

    def num_ready(self, name: str, deployment: str) -> int:
        """Return how many replicas of a deployment take requests."""
        application = self.state.applications.get(name)
        return len(application.rotation(deployment)) if application is not None else 0

    def _unsettled(self) -> list[str]:
        """Return the first applications that are not as they are wanted."""
        found = []
        for name, application in self.state.applications.items():
            status = application_status(application)
            if application.failure:
                is_settled = status.status is ApplicationStatus.DEPLOY_FAILED and self._is_whole(application)
            elif any(r.config_error for r in application.replicas.values()):
                is_settled = status.status is ApplicationStatus.UNHEALTHY and self._is_whole(application)
            else:
                is_settled = status.status is ApplicationStatus.RUNNING and self._is_whole(application)
            if not is_settled:
                found.append(f"{name}: {status.status}: {status.message}")
                if len(found) == 3:
                    break
        return found

    @staticmethod
    def _is_whole(application: Application) -> bool:
        """Whether exactly the replicas of what serves are there, ready, with contiguous ranks."""
        serving = application.serving
        if serving is None:
            return not application.replicas
        wanted = 0
        for name, deployment in serving.by_name.items():
            count = application.count(serving, deployment)
            ready = application.rotation(name)
            is_scaled = application.scaler(serving, name) is not None
            ranks = [r.launch.rank for r in ready]
            if len(ranks) != count or not (is_scaled or sorted(ranks) == list(range(count))):
                return False
            wanted += count
        return wanted == len(application.replicas)

    # ---- the loop

    def _next(self) -> float | None:
        times = [at for at in (self._queue[0][0] if self._queue else None, self.core.wakes.next()) if at]
        return min(times, default=None)

    def _step(self, at: float) -> None:
        self.now = max(self.now, at)
        due = self.core.wakes.take_due(self.now)
        if due:
            self._tell(Woken(due))
        if self._queue and self._queue[0][0] <= self.now:
            heapq.heappop(self._queue)[2]()

    def _later(self, seconds: float, happen: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + seconds, self._sequence, happen))

    def _tell(self, event: Event) -> None:
        for name in self._unsaved:
            self._save(name)
        self._unsaved.clear()
        self.num_events += 1
        if self.core.tell(event) and not self._is_news_due:
            self._is_news_due = True
            self._later(_NEWS_S, self._serve)

    def _serve(self) -> None:
        """Every ingress routes by the newest table now."""
        self._is_news_due = False
        self._version += 1
        self.core.mark_routed(self._version)
        self.core.tell(TableServed(self._version))

    def _save(self, name: str) -> None:
        application = self.state.applications.get(name)
        if application is None:
            self._saved.pop(name, None)
            return
        self._saved[name] = _Saved(
            target=application.target,
            serving=application.serving,
            failure=application.failure,
            failed_deployment=application.failed_deployment,
            deleting=application.deleting,
            last_revision=application.last_revision,
        )

    # ---- actions

    def _run(self, application: Application, action: Action) -> None:
        application.validate()
        kind = type(action).__name__
        self.num_actions[kind] = self.num_actions.get(kind, 0) + 1
        match action:
            case StartReplica():
                self._start(application, action)
            case ReconfigureReplica():
                self.core.add(ReplicaReconfiguring(action.replica_id, action.revision))
                self._reconfigure(application, action)
            case DrainReplica():
                self._check_rotation(application, action)
                self.core.add(ReplicaLeaving(action.replica_id, self.now + action.timeout_s, action.reason))
                self._told.add(action.replica_id)
                self._leave(action.replica_id, self._between(self.habits.leave_s))
            case KillReplica():
                self.core.add(ReplicaKilled(action.replica_id))
                self._later(_NEWS_S, lambda: self._end(action.replica_id, "killed by SIGKILL"))
            case GiveUpReplica():
                self.core.add(ReplicaGivenUp(action.replica_id, action.reason))
                self._later(_NEWS_S, lambda: self._end(action.replica_id, "killed by SIGKILL"))
            case ResizeDeployment():
                self.core.add(
                    DeploymentScaled(
                        action.app_name, action.deployment, action.revision, action.decision, action.window
                    )
                )
            case AskPolicy():
                # Nobody answers here, as when the helper cannot be started.
                self.core.add(PolicyAsked(action.app_name, action.revision, action.owner))
            case CompleteRevision():
                self.core.add(RevisionCompleted(action.app_name, action.number))
                self._unsaved.add(action.app_name)
            case FailRevision():
                self.core.add(RevisionFailed(action.app_name, action.number, action.deployment, action.error))
                self._unsaved.add(action.app_name)
            case ForgetApplication():
                self.core.add(ApplicationForgotten(action.name))
                self._unsaved.add(action.name)

    def _start(self, application: Application, action: StartReplica) -> None:
        revision = next(
            r
            for r in (application.target, application.serving)
            if r is not None and r.number == action.revision
        )
        launch = self._launch(revision, action)
        self.core.add(ReplicaRequested(launch))
        missing = self._missing(launch)
        if missing:
            self._later(0.0, lambda: self._tell(ReplicaUnplaced(launch.replica_id, f"{missing!r} is held")))
            return
        process = self._processes[launch.replica_id] = _Process(launch, 10_000 + self._sequence)
        self._later(
            0.0,
            lambda: self._tell(ReplicaRunning(launch.replica_id, process.pid)),
        )
        self._later(self._between(self.habits.start_s), lambda: self._become_ready(launch.replica_id))

    def _launch(self, revision: Revision, action: StartReplica) -> ReplicaLaunch:
        deployment = revision.by_name[action.deployment]
        self._sequence += 1
        tag = f"{self._sequence:08}"
        return ReplicaLaunch(
            replica_id=f"{action.app_name}#{action.deployment}#{tag}",
            app_name=action.app_name,
            deployment=action.deployment,
            revision=action.revision,
            is_ingress=action.deployment == revision.spec.ingress,
            route_prefix=revision.spec.route_prefix,
            definition=deployment.definition,
            options=deployment.options,
            code=revision.spec.code,
            address=f"/{tag}.sock",
            controller_address="/controller.sock",
            log_path="",
            rank=action.rank,
            world_size=max(deployment.options.num_replicas, action.rank + 1),
            parents=revision.parents(action.deployment),
            generations={name: revision.generation(name) for name in revision.by_name},
            joins=action.joins,
        )

    def _missing(self, launch: ReplicaLaunch) -> str:
        """Return the name of what is not free for one more replica, or nothing."""
        for name, have in self.habits.capacity.items():
            held = sum(p.launch.options.resources.resources.get(name, 0.0) for p in self._processes.values())
            need = launch.options.resources.resources.get(name, 0.0)
            if need and held + need > have:
                return name
        return ""

    def _become_ready(self, replica_id: str) -> None:
        process = self._processes.get(replica_id)
        if process is None:
            return
        launch = process.launch
        if launch.definition == BROKEN or launch.options.user_config == REFUSED:
            self._tell(ReplicaReported(replica_id, "ValueError: no weights"))
            self._end(replica_id, "exit code 1")
            return
        process.is_ready = True
        if process.mark is ReplicaPhase.STARTING:
            process.mark = ReplicaPhase.READY
        self._tell(ReplicaReported(replica_id))
        if self.habits.mean_life_s is not None:
            life_s = self._random.expovariate(1.0 / self.habits.mean_life_s)
            self._later(life_s, lambda: self._crash_by_chance(replica_id))

    def _crash_by_chance(self, replica_id: str) -> None:
        # Habits may have changed: then those that run live on, too.
        if self.habits.mean_life_s is not None:
            self._end(replica_id, "killed by SIGSEGV")

    def _reconfigure(self, application: Application, action: ReconfigureReplica) -> None:
        serving = application.serving
        assert serving is not None, "only what serves is changed in place"
        options: Any = serving.by_name[application.replicas[action.replica_id].launch.deployment].options
        error = f"ValueError: {REFUSED}" if options.user_config == REFUSED else ""
        self._later(
            _NEWS_S, lambda: self._tell(ReplicaReconfigured(action.replica_id, action.revision, error))
        )

    def _leave(self, replica_id: str, after_s: float) -> None:
        process = self._processes.get(replica_id)
        if process is not None:
            process.mark = ReplicaPhase.DRAINING
            self._later(after_s, lambda: self._end(replica_id, "exit code 0"))

    def _end(self, replica_id: str, reason: str) -> None:
        if self._processes.pop(replica_id, None) is not None:
            self._tell(ReplicaEnded(replica_id, reason))

    def _check_rotation(self, application: Application, action: DrainReplica) -> None:
        """Assert that nobody is sent away whom the requests need."""
        replica = application.replicas[action.replica_id]
        serving, name = application.serving, replica.launch.deployment
        if serving is None or replica.phase is not ReplicaPhase.READY or not application.serves(replica):
            return
        revisions = [r for r in (serving, application.target) if r is not None and name in r.by_name]
        options = [r.by_name[name].options for r in revisions]
        stays = [r for r in application.rotation(name) if r.replica_id not in self._told]
        if any(o.max_surge_percent == 0 or o.resources.resources for o in options):
            return
        at_least = min(application.count(r, r.by_name[name]) for r in revisions)
        assert len(stays) - 1 >= at_least, f"{action.replica_id} is needed: {action.reason}"

    def _between(self, limits: tuple[float, float]) -> float:
        return self._random.uniform(*limits)
