"""The controller's shell: folds events into the state, runs what the reconcilers decide, answers calls.

Driven by events only: what the engine and the peers report, what users ask, and the times that plans name.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import msgspec

from trygon.clock import Clock
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
from trygon.control.calls import Waiters
from trygon.control.changes import Changes
from trygon.control.core import Core
from trygon.control.deaths import death_cause
from trygon.control.details import instance_details, instance_status
from trygon.control.events import (
    ApplicationDeleted,
    ApplicationForgotten,
    CallerLost,
    DeploymentScaled,
    Event,
    LoadReported,
    PolicyAsked,
    ReplicaAdopted,
    ReplicaDelayed,
    ReplicaEnded,
    ReplicaGivenUp,
    ReplicaKilled,
    ReplicaLeaving,
    ReplicaMeasured,
    ReplicaReconfigured,
    ReplicaReconfiguring,
    ReplicaReported,
    ReplicaRequested,
    ReplicaRunning,
    ReplicaUnplaced,
    RevisionCompleted,
    RevisionFailed,
    RouterTroubled,
    TableServed,
    Woken,
)
from trygon.control.explaining import explain
from trygon.control.fold import fold
from trygon.control.goal import goal_of
from trygon.control.helpers import HelperDesk
from trygon.control.keeping import Keeper
from trygon.control.launching import Launching
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.server import ControlServer, Peer
from trygon.control.settling import Settling
from trygon.control.state import Application
from trygon.control.store import Store
from trygon.control.watch import HealthWatch
from trygon.engine.base import (
    Engine,
    EngineEvent,
    ReplicaExited,
    ReplicaStarted,
    ReplicaUnplaceable,
    ShutdownBegun,
)
from trygon.errors import InstanceError, TrygonError
from trygon.spec.control import (
    Call,
    DeleteApplication,
    DeployApplications,
    Explain,
    FromPeer,
    GetDetails,
    GetGoal,
    GetHistory,
    GetStatus,
    InstanceInfo,
    LoadReport,
    Reconfigure,
    ReconfigureDone,
    ReplicaAlive,
    ReplicaFailed,
    ReplicaPreparing,
    ReplicaReady,
    ReplicaStats,
    ReplicaUnhealthy,
    RouterTrouble,
    ScaleDeployment,
    Shutdown,
    UndoApplication,
    WaitApplications,
    WaitDeleted,
)
from trygon.spec.control import (
    DrainReplica as DrainOrder,
)
from trygon.spec.instance import InstanceRecord
from trygon.spec.status import ProxyStatus

__all__ = ["Controller"]

#: A replica's last words may still be in its socket when its death is told; then its link ends soon after.
_LAST_WORDS_S = 0.2
#: Somebody else holds the dead replica's socket open if its link has not ended by then.
_LINK_END_S = 5.0
#: An ingress that does not answer must not hold up a drain for longer; its requests are then rejected
#: by the draining replica and sent elsewhere.
_APPLY_S = 1.0
#: Beyond a drain's own timeout: the ingress processes' time to apply the table, and the replica's way out.
_DRAIN_SLACK_S = _APPLY_S + 0.5

logger = logging.getLogger("trygon.control")


class Controller:
    """Makes what is follow what is wanted.

    Args:
        engine: Where replicas run.
        server: The control link.
        store: Keeps what users asked for.
        clock: Tells the time.
        record: The instance, for those who ask.
        launching: Makes launches of replicas.
        num_ingress: Ingress processes that must serve a table before an application counts as running.
    """

    def __init__(  # noqa: PLR0913 - its parts, put together by the root
        self,
        *,
        engine: Engine,
        server: ControlServer,
        store: Store,
        clock: Clock,
        record: InstanceRecord,
        launching: Launching,
        num_ingress: int,
    ) -> None:
        self._engine = engine
        self._server = server
        self._clock = clock
        self._record = record
        self._launching = launching
        self._num_ingress = num_ingress
        self.core = Core(self._run, clock.monotonic)
        self.state = self.core.state
        self._keeper = Keeper(store, self.state)
        #: Set when the state can no longer be trusted; the process must then end and be restarted.
        self.broken = asyncio.Event()
        self._waiters = Waiters()
        self._settling = Settling()
        self._watch = HealthWatch(self.state, engine, clock, self._handle)
        self._helpers = HelperDesk(self.state, engine, clock, record, launching.blobs, self._handle)
        self._changes = Changes(self.state, self._keeper, engine, clock, self._handle, self._helpers.prepare)
        self._wake: asyncio.TimerHandle | None = None
        self._shutdown: ShutdownBegun | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: Exits that wait for the replica's link to end, by replica id.
        self._exits: dict[str, ReplicaExited] = {}

    # ---- life

    async def start(self) -> None:
        """Load what is wanted, adopt what runs, and begin."""
        self._keeper.restore(self._clock.monotonic(), self._clock.wall())
        self.state.logging = self._launching.logging
        self.state.runtime_dir = self._record.runtime_dir
        running = await self._engine.connect(self._take_engine_event)
        for replica in running:
            if replica.mark in (ReplicaPhase.DRAINING, ReplicaPhase.FAILED):
                # The controller before may have died before it said so.
                self._engine.stop(replica.launch.replica_id, force=False)
            self.core.add(ReplicaAdopted(replica.launch, replica.pid, replica.mark or ReplicaPhase.STARTING))
        server = self._server
        server.on_hello = lambda _: self._check_served()
        server.on_applied = lambda _: self._check_served()
        server.on_lost = self._peer_lost
        server.on_call = self._take_call
        server.on_message = self._take_message
        self._handle(Woken())
        for name in self.state.applications:
            self._helpers.prepare(name)
        self._settling.begin(self.state)
        self._watch.start()

    async def close(self) -> None:
        """Let go of everything; replicas run on."""
        for task in list(self._tasks):
            task.cancel()
        if self._wake is not None:
            self._wake.cancel()
        self._watch.close()
        self._settling.close()
        self._helpers.close()
        await self._server.close()
        await self._engine.close()

    # ---- the loop: events in, actions out

    def _handle(self, *events: Event) -> None:
        """Fold events and whatever follows from them; actions may add events, which are folded in turn."""
        try:
            has_changed = self.core.tell(*events)
            if has_changed is None:
                return
            self._publish(has_changed=has_changed)
            self._schedule()
            self._waiters.look(self.state)
            self._settling.look(self.state)
            self._helpers.tidy()
            self._end_if_drained()
        except Exception:
            # A state that may be half changed must not decide anything; a fresh controller adopts what runs.
            self.broken.set()
            raise

    def _run(self, application: Application, action: Action) -> None:
        core = self.core
        match action:
            case StartReplica():
                launch = self._launching.launch(application, action)
                if action.helper:
                    logger.warning("replica %s stands in while another is blocked", launch.replica_id)
                core.add(ReplicaRequested(launch))
                self._engine.start(launch)
            case ReconfigureReplica():
                core.add(ReplicaReconfiguring(action.replica_id, action.revision))
                self._reconfigure(application, action)
            case DrainReplica():
                self._begin_drain(action)
            case KillReplica():
                core.add(ReplicaKilled(action.replica_id))
                self._engine.stop(action.replica_id, force=True)
            case GiveUpReplica():
                logger.warning("replica %s is given up: %s", action.replica_id, action.reason)
                core.add(ReplicaGivenUp(action.replica_id, action.reason))
                self._engine.mark(action.replica_id, ReplicaPhase.FAILED)
                self._engine.stop(action.replica_id, force=True)
            case ResizeDeployment():
                core.add(
                    DeploymentScaled(
                        action.app_name, action.deployment, action.revision, action.decision, action.window
                    )
                )
            case AskPolicy():
                core.add(PolicyAsked(action.app_name, action.revision, action.owner))
                self._helpers.ask(application, action)
            case CompleteRevision():
                logger.info("revision %d of application %r is complete", action.number, action.app_name)
                core.add(RevisionCompleted(action.app_name, action.number))
                self._spawn(self._keeper.save())
            case FailRevision():
                logger.error(
                    "revision %d of application %r failed: %s", action.number, action.app_name, action.error
                )
                core.add(RevisionFailed(action.app_name, action.number, action.deployment, action.error))
                self._spawn(self._keeper.save())
            case ForgetApplication():
                core.add(ApplicationForgotten(action.name))
                self._keeper.forget(application, self._clock.wall())
                self._spawn(self._keeper.save())

    def _reconfigure(self, application: Application, action: ReconfigureReplica) -> None:
        serving = application.serving
        peer = self._server.replica(action.replica_id)
        if peer is None or serving is None:
            # A replica without a link hears of it when it is back: it then reports anew.
            return
        deployment = serving.by_name[application.replicas[action.replica_id].launch.deployment]
        peer.send(
            Reconfigure(
                options=deployment.options,
                revision=action.revision,
                world_size=application.count(serving, deployment),
                app_logging=serving.spec.logging,
            )
        )

    def _begin_drain(self, action: DrainReplica) -> None:
        deadline = self._clock.monotonic() + (action.timeout_s + _DRAIN_SLACK_S if action.timeout_s else 0.0)
        self.core.add(ReplicaLeaving(action.replica_id, deadline, action.reason))
        self._engine.mark(action.replica_id, ReplicaPhase.DRAINING)
        if action.timeout_s:
            self._spawn(self._drain(action))

    async def _drain(self, action: DrainReplica) -> None:
        """Tell a replica to go once no ingress sends it anything new."""
        version = self._server.table.version
        loop = asyncio.get_running_loop()
        until = loop.time() + min(_APPLY_S, action.timeout_s)
        while self._served_version() < version and loop.time() < until:
            await self._waiters.applied(until - loop.time())
        peer = self._server.replica(action.replica_id)
        if peer is not None:
            peer.send(DrainOrder(timeout_s=action.timeout_s))
        else:
            # Its loop may be blocked or its link just broken; a signal reaches it all the same.
            self._engine.stop(action.replica_id, force=False)

    def _publish(self, *, has_changed: bool) -> None:
        current = self._server.table
        if not has_changed and current.version > 0:
            return
        # Milliseconds since the machine started: larger than any version of the controller before this one.
        version = max(current.version + 1, int(self._clock.monotonic() * 1000))
        self._server.publish(self.core.routes.table(version))
        self.core.mark_routed(version)
        self._check_served()

    def _served_version(self) -> int:
        """Return the newest version that every ingress routes by."""
        if self._shutdown is not None or self._num_ingress == 0:
            return self._server.table.version
        applied = self._applied_versions()
        return min(applied.values()) if len(applied) >= self._num_ingress else 0

    def _applied_versions(self) -> dict[str, int]:
        """Return the version that each ingress slot routes by, of those that are there."""
        applied: dict[str, int] = {}
        for peer in self._server.of_role("ingress"):
            if peer.hello is not None:
                # The link of a dead one may outlive the first words of its successor.
                slot = peer.hello.peer_id
                applied[slot] = min(peer.applied_version, applied.get(slot, peer.applied_version))
        return applied

    def _check_served(self) -> None:
        self._waiters.tell_applied()
        fold(self.state, TableServed(self._served_version()), self._clock.monotonic())
        self._waiters.look(self.state)
        self._settling.look(self.state)

    def _schedule(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        at = self.core.wakes.next()
        if at is not None:
            delay = max(0.0, at - self._clock.monotonic())
            self._wake = asyncio.get_running_loop().call_later(delay, self._wake_up)

    def _wake_up(self) -> None:
        self._handle(Woken(self.core.wakes.take_due(self._clock.monotonic())))

    # ---- what the engine and the replicas report

    def _take_engine_event(self, event: EngineEvent) -> None:
        match event:
            case ReplicaStarted():
                self._handle(ReplicaRunning(event.replica_id, event.pid))
            case ReplicaUnplaceable():
                self._handle(ReplicaUnplaced(event.replica_id, event.reason))
            case ReplicaExited():
                self._take_exit(event)
            case ShutdownBegun():
                self._begin_shutdown(event)

    def _take_exit(self, event: ReplicaExited) -> None:
        application = self.state.owner(event.replica_id)
        if application is None:
            return
        replica = application.replicas[event.replica_id]
        self._launching.prune_logs(application, replica.launch)
        if replica.phase is ReplicaPhase.READY:
            logger.warning("replica %s ended unasked: %s", event.replica_id, event.reason)
        if replica.phase is not ReplicaPhase.STARTING:
            cause = death_cause(
                event.exit_code,
                event.signal,
                is_told=replica.phase is not ReplicaPhase.READY,
                is_out_of_memory=event.out_of_memory,
            )
            self._handle(ReplicaEnded(event.replica_id, event.reason, cause))
            return
        # It may have said why on its link, which is read after the news of its death.
        self._exits[event.replica_id] = event
        # A link that is still up ends with its process, so its end is waited for, on a busy machine too.
        is_linked = self._server.replica(event.replica_id) is not None
        patience_s = _LINK_END_S if is_linked else _LAST_WORDS_S
        asyncio.get_running_loop().call_later(patience_s, self._finish_exit, event.replica_id)

    def _finish_exit(self, replica_id: str) -> None:
        event = self._exits.pop(replica_id, None)
        application = self.state.owner(replica_id)
        if event is None or application is None:
            return
        launch = application.replicas[replica_id].launch
        self._handle(ReplicaEnded(replica_id, self._launching.explain_exit(launch, event.reason)))

    def _peer_lost(self, peer: Peer) -> None:
        hello = peer.hello
        if hello is not None and hello.role == "replica":
            self._finish_exit(hello.peer_id)
        self._waiters.forget(peer)
        self._handle(CallerLost(peer.name))
        if hello is not None and hello.role == "ingress":
            self._check_served()

    def _take_message(self, peer: Peer, message: FromPeer) -> None:
        match message:
            case ReplicaReady():
                self._engine.mark(message.replica_id, ReplicaPhase.READY)
                self._handle(ReplicaReported(message.replica_id))
            case ReplicaAlive():
                self._watch.heard(message)
            case ReplicaPreparing():
                self._handle(ReplicaDelayed(message.replica_id, message.doing))
            case ReplicaFailed():
                self._handle(ReplicaReported(message.replica_id, message.error or "no reason was given"))
            case ReplicaUnhealthy():
                self._take_unhealthy(message)
            case LoadReport():
                self._handle(LoadReported(peer.name, message.loads))
            case ReplicaStats():
                self._handle(ReplicaMeasured(message.replica_id, message.stats))
            case RouterTrouble():
                self._handle(
                    RouterTroubled(
                        peer.name, message.app_name, message.deployment, message.num_requests, message.error
                    )
                )
            case ReconfigureDone():
                self._handle(ReplicaReconfigured(message.replica_id, message.revision, message.error))
            case _:
                logger.debug("message without effect", extra={"kind": type(message).__name__})

    def _take_unhealthy(self, message: ReplicaUnhealthy) -> None:
        application = self.state.owner(message.replica_id)
        if application is None or application.replicas[message.replica_id].phase is not ReplicaPhase.READY:
            return
        logger.warning("replica %s is unhealthy: %s", message.replica_id, message.error)
        timeout_s = application.replicas[message.replica_id].launch.options.graceful_shutdown_timeout_s
        self._engine.mark(message.replica_id, ReplicaPhase.FAILED)
        self._handle(ReplicaReported(message.replica_id, message.error or "its health check failed"))
        self._spawn(self._drain(DrainReplica(message.replica_id, timeout_s, "it is unhealthy")))

    # ---- what users ask

    def _take_call(self, peer: Peer, call: Call) -> None:
        self._spawn(self._answer(peer, call))

    async def _answer(self, peer: Peer, call: Call) -> None:
        request = call.request
        try:
            match request:
                case DeployApplications():
                    peer.reply(call.seq, await self._changes.deploy(request))
                case WaitApplications():
                    self._waiters.add_running(peer, call.seq, request.revisions)
                    self._waiters.look(self.state)
                case DeleteApplication():
                    await self._changes.delete(request)
                    peer.reply(call.seq)
                case WaitDeleted():
                    self._waiters.add_deleted(peer, call.seq, request.name)
                    self._waiters.look(self.state)
                case UndoApplication():
                    peer.reply(call.seq, await self._changes.undo(request))
                case ScaleDeployment():
                    peer.reply(call.seq, await self._changes.scale(request))
                case GetStatus() | GetDetails() | GetGoal() | GetHistory() | Explain() | InstanceInfo():
                    if isinstance(request, GetStatus | GetDetails):
                        await self._settling.wait()
                    peer.reply(call.seq, msgspec.to_builtins(self._look_up(request)))
                case Shutdown():
                    self._waiters.add_shutdown(peer, call.seq)
                    await self._keeper.clear()
                    self._engine.begin_shutdown(request.grace_s)
        except TrygonError as error:
            peer.refuse(call.seq, error)
        except Exception as error:
            # The boundary of a call: the caller must hear of it, and the controller goes on.
            logger.exception("a call failed")
            peer.refuse(call.seq, InstanceError(f"the controller failed: {error!r}; see its log"))

    def _look_up(
        self, request: GetStatus | GetDetails | GetGoal | GetHistory | Explain | InstanceInfo
    ) -> Any:
        """Return what a question that changes nothing is answered with."""
        match request:
            case GetStatus():
                return instance_status(self.state, self._proxies())
            case GetDetails():
                return instance_details(
                    self.state,
                    self._record,
                    self._proxies(),
                    controller_pid=os.getpid(),
                    now=self._clock.monotonic(),
                    wall_now=self._clock.wall(),
                )
            case GetGoal():
                return goal_of(self.state, self._engine.resources())
            case GetHistory():
                return self._keeper.history.records(self._changes.remembered(request.name))
            case Explain():
                return explain(self.state, request.name, self._clock.monotonic())
            case InstanceInfo():
                return self._record

    def _proxies(self) -> dict[str, ProxyStatus]:
        proxies = {str(number): ProxyStatus.STARTING for number in range(self._num_ingress)}
        for slot, version in self._applied_versions().items():
            proxies[slot] = ProxyStatus.HEALTHY if version else ProxyStatus.STARTING
        return proxies

    # ---- the end

    def _begin_shutdown(self, event: ShutdownBegun) -> None:
        if self._shutdown is not None:
            return
        self._shutdown = event
        self.core.longest_drain_s = event.grace_s
        self._keeper.close()
        self._changes.close()
        names = list(self.state.applications)
        self._handle(*(ApplicationDeleted(name) for name in names))

    def _end_if_drained(self) -> None:
        if self._shutdown is not None and not self.state.applications:
            self._waiters.end()
            self._engine.end()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish_task)

    def _finish_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the controller failed", exc_info=task.exception())
