"""Folds events into the controller's state: the only place that changes it. Pure but for that state."""

from __future__ import annotations

import msgspec

from trygon.control.events import (
    ApplicationDeleted,
    ApplicationDeployed,
    ApplicationForgotten,
    CallerLost,
    DeploymentScaled,
    Event,
    InstanceChanged,
    LoadReported,
    PolicyAnswered,
    PolicyAsked,
    ReplicaAdopted,
    ReplicaDelayed,
    ReplicaEnded,
    ReplicaGivenUp,
    ReplicaKilled,
    ReplicaLeaving,
    ReplicaMeasured,
    ReplicaObserved,
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
from trygon.control.reconcile.deployment import after_failed_start, after_ready
from trygon.control.reconcile.health import describe_trouble
from trygon.control.reconcile.intensity import after_crash
from trygon.control.reconcile.replica import (
    InvalidTransition,
    ReplicaEventKind,
    ReplicaPhase,
    Trouble,
    next_phase,
)
from trygon.control.router_troubles import fold_router_trouble, forget_router_troubles
from trygon.control.scaling import ScalingEvent, adopt_replica, end_adoption, fold_scaling, scale_revision
from trygon.control.state import Application, ControllerState, Replica
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.routing import ReplicaDeath

__all__ = ["fold"]

#: A replica that could not start ends by itself; after this it is helped.
_FAILED_GRACE_S = 5.0


def fold(state: ControllerState, event: Event, now: float) -> set[str]:
    """Change `state` by `event`; return the names of the applications that must be reconciled.

    Events about replicas that are not known (any more) change nothing.
    """
    match event:
        case Woken():
            if event.names is None:
                end_adoption(state)
            return set(state.applications) if event.names is None else set(event.names)
        case InstanceChanged():
            state.target_capacity = event.target_capacity
            state.http_timeouts = event.http_timeouts
            return set()
        case TableServed():
            return _table_served(state, event.version)
        case ApplicationDeployed() | ApplicationDeleted() | ApplicationForgotten():
            return _fold_application(state, event, now)
        case RevisionCompleted() | RevisionFailed():
            return _fold_revision(state, event, now)
        case (
            LoadReported()
            | CallerLost()
            | RouterTroubled()
            | ReplicaMeasured()
            | DeploymentScaled()
            | PolicyAsked()
            | PolicyAnswered()
        ):
            return _fold_numbers(state, event, now)
        case ReplicaRequested() | ReplicaAdopted():
            return _add_replica(state, event, now)
        case _:
            return _fold_replica(state, event, now)


def _fold_numbers(state: ControllerState, event: ScalingEvent | RouterTroubled, now: float) -> set[str]:
    """Take what callers and replicas tell of how it goes."""
    if isinstance(event, RouterTroubled):
        fold_router_trouble(state, event, now)
        return set()
    if isinstance(event, CallerLost):
        forget_router_troubles(state, event.caller)
    return fold_scaling(state, event, now)


def _fold_application(
    state: ControllerState,
    event: ApplicationDeployed | ApplicationDeleted | ApplicationForgotten,
    now: float,
) -> set[str]:
    name = event.name
    if isinstance(event, ApplicationForgotten):
        state.applications.pop(name, None)
        state.waiting.discard(name)
        state.unserved.discard(name)
        return {name}
    if isinstance(event, ApplicationDeleted):
        application = state.applications.get(name)
        if application is None:
            return set()
        for deployment in {r.launch.deployment for r in application.replicas.values()}:
            application.note(now, deployment, "the application is deleted")
        application.deleting = True
        application.target = application.serving = None
        state.unserved.discard(name)
        application.failure = application.failed_deployment = ""
        application.served = False
        # A table that is applied late must not make it served again.
        application.routed_version = 0
        return {name}
    application = state.applications.setdefault(name, Application(name))
    application.deleting = False
    application.target = event.revision
    application.last_revision = max(application.last_revision, event.revision.number)
    application.failure = application.failed_deployment = ""
    scale_revision(application, event.revision, now)
    _forget_records(application)
    for spec in event.revision.spec.deployments:
        application.note(now, spec.name, f"revision {event.revision.number} is wanted")
    return {name}


def _fold_revision(state: ControllerState, event: RevisionCompleted | RevisionFailed, now: float) -> set[str]:
    application = state.applications.get(event.app_name)
    target = application.target if application is not None else None
    if application is None or target is None or target.number != event.number:
        return set()
    if isinstance(event, RevisionFailed):
        application.failure = event.error
        application.failed_deployment = event.deployment
        application.note(now, event.deployment, f"revision {event.number} is given up: {event.error}")
    else:
        application.serving = target
        state.unserved.add(application.name)
        application.routed_version = 0
        application.served = False
        for spec in target.spec.deployments:
            application.note(now, spec.name, f"revision {event.number} is complete and takes requests")
    return {event.app_name}


def _add_replica(state: ControllerState, event: ReplicaRequested | ReplicaAdopted, now: float) -> set[str]:
    launch = msgspec.structs.replace(event.launch, definition=b"")
    application = state.applications.get(launch.app_name)
    if application is None:
        # An adopted replica of something nobody wants: file it, so that it is drained.
        application = Application(launch.app_name)
        application.deleting = True
        state.applications[launch.app_name] = application
    phase, pid = ReplicaPhase.STARTING, 0
    if isinstance(event, ReplicaAdopted):
        phase, pid = ReplicaPhase(event.phase), event.pid
    leaving = phase in (ReplicaPhase.DRAINING, ReplicaPhase.FAILED)
    application.replicas[launch.replica_id] = Replica(
        launch=launch,
        phase=phase,
        since=now,
        started_at=now,
        pid=pid,
        deadline=now + launch.options.graceful_shutdown_timeout_s if leaving else None,
        configured=launch.revision,
        asked=launch.revision,
    )
    if isinstance(event, ReplicaAdopted):
        adopt_replica(application, application.replicas[launch.replica_id])
    verb = "adopted" if isinstance(event, ReplicaAdopted) else "started"
    if launch.is_helper:
        verb += " as a helper, while the loop of another is blocked"
    application.note(now, launch.deployment, f"replica {launch.replica_id} {verb}")
    return {launch.app_name}


def _fold_replica(
    state: ControllerState,
    event: ReplicaRunning
    | ReplicaReported
    | ReplicaDelayed
    | ReplicaObserved
    | ReplicaUnplaced
    | ReplicaEnded
    | ReplicaLeaving
    | ReplicaKilled
    | ReplicaGivenUp
    | ReplicaReconfiguring
    | ReplicaReconfigured,
    now: float,
) -> set[str]:
    application = state.owner(event.replica_id)
    if application is None:
        return set()
    replica = application.replicas[event.replica_id]
    match event:
        case ReplicaRunning():
            application.replicas[event.replica_id] = msgspec.structs.replace(replica, pid=event.pid)
            return set()
        case ReplicaKilled():
            application.replicas[event.replica_id] = msgspec.structs.replace(replica, deadline=None)
            return set()
        case ReplicaDelayed():
            application.replicas[event.replica_id] = msgspec.structs.replace(replica, delay=event.why)
            application.note(now, replica.launch.deployment, f"replica {event.replica_id}: {event.why}")
        case ReplicaObserved():
            return _observe(application, replica, event.trouble, now)
        case ReplicaReconfiguring() | ReplicaReconfigured():
            application.replicas[event.replica_id] = _after_config(application, replica, event, now)
        case ReplicaReported():
            _take_report(application, replica, event, now)
        case _:
            _take_end(state, application, replica, event, now)
            if isinstance(event, ReplicaEnded):
                return {application.name} | _unblock(state)
    return {application.name}


def _take_report(application: Application, replica: Replica, event: ReplicaReported, now: float) -> None:
    if event.error:
        _step(
            application,
            replica,
            ReplicaEventKind.REPORTED_BROKEN,
            now,
            reason=event.error,
            deadline=now + _time_to_leave_s(replica),
        )
        return
    if replica.asked > replica.configured and not replica.config_error:
        # It speaks over a new link: what was asked of it over the one before may be lost.
        application.replicas[event.replica_id] = replica = msgspec.structs.replace(
            replica, asked=replica.configured
        )
    _step(application, replica, ReplicaEventKind.REPORTED_READY, now)


def _take_end(
    state: ControllerState,
    application: Application,
    replica: Replica,
    event: ReplicaLeaving | ReplicaGivenUp | ReplicaUnplaced | ReplicaEnded,
    now: float,
) -> None:
    """A replica is on its way out, or gone."""
    match event:
        case ReplicaLeaving():
            kind = ReplicaEventKind.TOLD_TO_LEAVE
            _step(application, replica, kind, now, reason=event.reason, deadline=event.deadline)
        case ReplicaGivenUp():
            application.replicas[event.replica_id] = replica = msgspec.structs.replace(replica, given_up=True)
            _step(application, replica, ReplicaEventKind.GIVEN_UP, now, reason=event.reason)
        case ReplicaUnplaced():
            _step(application, replica, ReplicaEventKind.UNPLACED, now, reason=event.reason)
            state.waiting.add(application.name)
        case ReplicaEnded():
            if event.cause is not None:
                state.deaths.append(ReplicaDeath(event.replica_id, event.cause))
            _step(application, replica, ReplicaEventKind.ENDED, now, reason=event.reason)


def _observe(application: Application, replica: Replica, trouble: Trouble | None, now: float) -> set[str]:
    if replica.phase is ReplicaPhase.STARTING:
        # Imports and constructors may block as long as they like.
        return set()
    if trouble is not None and trouble.since < replica.since and replica.phase is ReplicaPhase.READY:
        # A beat from the end of its start may come after the word that it is ready.
        trouble = msgspec.structs.replace(trouble, since=replica.since)
    before, name = replica.trouble, replica.replica_id
    application.replicas[name] = msgspec.structs.replace(replica, trouble=trouble)
    if (before.kind if before else None) is not (trouble.kind if trouble else None):
        text = describe_trouble(trouble) if trouble is not None else "it answers again"
        application.note(now, replica.launch.deployment, f"replica {name}: {text}")
    return {application.name}


def _forget_records(application: Application) -> None:
    """Start anew where the wanted revision brings something new, code or options."""
    target, serving = application.target, application.serving
    kept = {
        (name, revision.generation(name))
        for revision in (target, serving)
        if revision is not None
        for name in revision.by_name
    }
    if target is not None:
        kept -= {
            (name, target.generation(name)) for name in target.by_name if target.config(name) == target.number
        }
    application.records = {key: r for key, r in application.records.items() if key in kept}


def _after_config(
    application: Application, replica: Replica, event: ReplicaReconfiguring | ReplicaReconfigured, now: float
) -> Replica:
    """Return the replica after it was told, or said, what options it has."""
    name = replica.launch.deployment
    if isinstance(event, ReplicaReconfiguring):
        application.note(
            now, name, f"replica {replica.replica_id} is to take revision {event.revision}'s options"
        )
        return msgspec.structs.replace(replica, asked=event.revision, config_error="")
    if event.error:
        application.note(
            now,
            name,
            f"replica {replica.replica_id} refused revision {event.revision}'s options: {event.error}",
        )
        is_newest = event.revision >= replica.asked
        return msgspec.structs.replace(replica, config_error=event.error) if is_newest else replica
    serving = application.serving
    launch = replica.launch
    if serving is not None and serving.number == event.revision and name in serving.by_name:
        # Its drain, and its start again, go by what it has now.
        launch = msgspec.structs.replace(launch, options=serving.by_name[name].options)
    return msgspec.structs.replace(
        replica,
        launch=launch,
        configured=max(replica.configured, event.revision),
        asked=max(replica.asked, event.revision),
        config_error=replica.config_error if event.revision < replica.asked else "",
    )


def _time_to_leave_s(replica: Replica) -> float:
    """A replica that failed while it served still has requests to finish."""
    if replica.phase is ReplicaPhase.READY:
        return _FAILED_GRACE_S + replica.launch.options.graceful_shutdown_timeout_s
    return _FAILED_GRACE_S


def _step(
    application: Application,
    replica: Replica,
    kind: ReplicaEventKind,
    now: float,
    *,
    reason: str = "",
    deadline: float | None = None,
) -> None:
    try:
        phase = next_phase(replica.phase, kind)
    except InvalidTransition as error:
        story = "; ".join(text for _, text in application.log.get(replica.launch.deployment, ()))
        raise InvalidTransition(f"{error}: {replica.replica_id}: {story}") from None
    if phase is replica.phase:
        return
    _keep_record(application, replica, phase, kind, now, reason)
    if phase is ReplicaPhase.STOPPED:
        del application.replicas[replica.replica_id]
    else:
        application.replicas[replica.replica_id] = msgspec.structs.replace(
            replica, phase=phase, since=now, deadline=deadline, reason=reason
        )
    text = f"replica {replica.replica_id}: {replica.phase} -> {phase}"
    application.note(now, replica.launch.deployment, f"{text} ({reason.strip()})" if reason else text)


def _keep_record(
    application: Application,
    replica: Replica,
    phase: ReplicaPhase,
    kind: ReplicaEventKind,
    now: float,
    reason: str,
) -> None:
    """Remember how starting went, which decides on retries."""
    launch: ReplicaLaunch = replica.launch
    record = application.record(launch.deployment, launch.generation)
    match replica.phase, kind:
        case ReplicaPhase.STARTING, ReplicaEventKind.REPORTED_READY:
            record = after_ready(record)
        case ReplicaPhase.STARTING, ReplicaEventKind.UNPLACED:
            record = msgspec.structs.replace(record, blocked=reason)
        case ReplicaPhase.STARTING, ReplicaEventKind.REPORTED_BROKEN | ReplicaEventKind.ENDED:
            record = after_failed_start(record, reason, now)
        case (
            ReplicaPhase.READY,
            ReplicaEventKind.REPORTED_BROKEN | ReplicaEventKind.ENDED | ReplicaEventKind.GIVEN_UP,
        ):
            record = after_crash(record, reason, now, num_replicas=_num_wanted(application, launch))
        case _:
            return
    application.records[launch.deployment, launch.generation] = record


def _num_wanted(application: Application, launch: ReplicaLaunch) -> int:
    serving = application.serving
    scaler = application.scaler(serving, launch.deployment) if serving is not None else None
    return launch.options.num_replicas if scaler is None else scaler.count


def _unblock(state: ControllerState) -> set[str]:
    """Something was given back: whoever waits for resources may try again."""
    names = set()
    for name in state.waiting:
        application = state.applications[name]
        for key, record in application.records.items():
            if record.blocked:
                application.records[key] = msgspec.structs.replace(record, blocked="")
                names.add(name)
    state.waiting.clear()
    return names


def _table_served(state: ControllerState, version: int) -> set[str]:
    if version < state.served_version:
        # An ingress is gone, and its successor has to be told first.
        for name, application in state.applications.items():
            if application.served and application.routed_version > version:
                application.served = False
                state.unserved.add(name)
    state.served_version = version
    for name in list(state.unserved):
        application = state.applications[name]
        if application.routed_version and application.routed_version <= version:
            application.served = True
            state.unserved.discard(name)
    return set()
