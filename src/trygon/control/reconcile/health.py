"""What a replica's signs of life mean, and what follows: help, replacement, or nothing. Pure.

Callers take a replica that does not answer out of their own rotation within a second, and take it back as soon
as it does; nothing here does that. Here is decided what that cannot mend:

* A *blocked* replica's process works and its loop does not come round. After `HELP_AFTER_S` its deployment gets
  one replica more, until it has recovered or is replaced. It is replaced itself only when a health check would
  have failed three times: then it cannot be told from one that will never come back.
* A *frozen* replica's process does nothing at all. It is replaced after `FROZEN_AFTER_S`.
"""

from __future__ import annotations

import msgspec

from trygon.control.actions import GiveUpReplica, StartReplica
from trygon.control.reconcile.replica import ReplicaPhase, Trouble, TroubleKind
from trygon.control.state import Application, Replica, Revision
from trygon.engine.base import Vitals, exclusive
from trygon.spec.application import DeploymentOptions, DeploymentSpec

__all__ = [
    "SILENT_AFTER_S",
    "HealthPlan",
    "Signs",
    "describe_trouble",
    "diagnose",
    "health_limit_s",
    "is_answering",
    "plan_health",
]

#: Two beats of a watchdog are missing, and half a third one.
SILENT_AFTER_S = 2.5
#: A frozen replica is to be replaced within 10 s, its successor's start included. Long enough for a debugger's
#: or an operator's short SIGSTOP, and for a machine that swaps.
FROZEN_AFTER_S = 7.0
#: One that is to leave anyway holds up a shutdown or the end of a rollout; waiting for it brings nobody anything.
LEAVING_FROZEN_AFTER_S = 3.0
#: A loop that is blocked for longer needs somebody else to do its work.
HELP_AFTER_S = 10.0
#: Health checks in a row that must fail, as in Ray Serve.
_FAILED_CHECKS = 3


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """The signs of life of one replica's process, as they were last seen."""

    #: Monotonic; the last beat of its watchdog, or None before the first.
    heard_at: float | None
    #: What that beat said.
    blocked_s: float = 0.0
    where: str = ""
    #: Monotonic; when the process was last seen to have used a processor since the look before.
    worked_at: float = 0.0
    #: What the kernel says; None when it was not asked, or cannot be.
    vitals: Vitals | None = None


def diagnose(signs: Signs, now: float) -> Trouble | None:
    """Return what ails a replica, or None when it is well or nothing is known.

    A watchdog is silent when its process is stopped, when the kernel does not run it (a disk or a network file
    system that does not answer), and when native code holds the interpreter lock. The last is legitimate for
    seconds and longer (sorting, parsing, compressing), and shows as use of the processor: that is a blocked
    replica, and not a frozen one. Native code that sleeps with the lock held cannot be told from a dead lock;
    it must be back within `FROZEN_AFTER_S`.
    """
    heard_at, vitals = signs.heard_at, signs.vitals
    if heard_at is not None and now - heard_at < SILENT_AFTER_S:
        if not signs.blocked_s:
            return None
        since = heard_at - signs.blocked_s
        return Trouble(kind=TroubleKind.BLOCKED, since=since, for_s=now - since, where=signs.where)
    if vitals is not None and vitals.stopped:
        since = max(heard_at or 0.0, signs.worked_at)
        return Trouble(kind=TroubleKind.FROZEN, since=since, for_s=now - since, stopped=True)
    if heard_at is None:
        return None
    if vitals is not None and (vitals.running or now - signs.worked_at < SILENT_AFTER_S):
        since = heard_at - signs.blocked_s
        return Trouble(
            kind=TroubleKind.BLOCKED,
            since=since,
            for_s=now - since,
            where=signs.where or "native code that holds the interpreter lock",
        )
    since = max(heard_at, signs.worked_at)
    return Trouble(kind=TroubleKind.FROZEN, since=since, for_s=now - since)


def health_limit_s(options: DeploymentOptions) -> float:
    """Return how long a loop may be blocked: until three health checks in a row have failed for certain.

    The first begins at most a period later, each next one a period after the one before but not before that
    one has timed out, and the last one takes its timeout.
    """
    period_s, timeout_s = options.health_check_period_s, options.health_check_timeout_s
    return period_s + (_FAILED_CHECKS - 1) * max(period_s, timeout_s) + timeout_s


def describe_trouble(trouble: Trouble) -> str:
    """Say what ails a replica, in the words of a status."""
    if trouble.kind is TroubleKind.FROZEN:
        why = " and is stopped" if trouble.stopped else ""
        return f"its process has not answered for {trouble.for_s:.0f} s{why}"
    at = f" at {trouble.where}" if trouble.where else ""
    return f"its loop is blocked for {trouble.for_s:.0f} s{at}"


def is_answering(replica: Replica) -> bool:
    """Return whether a request that is sent to a replica now would be answered."""
    return replica.phase is ReplicaPhase.READY and replica.trouble is None


class HealthPlan(msgspec.Struct, frozen=True):
    """What the health of an application's replicas asks for."""

    actions: list[StartReplica | GiveUpReplica]
    #: Helpers that are no longer needed, with the reason.
    leaving: list[tuple[Replica, str]]
    #: Monotonic times to look again.
    wakes: list[float]


def plan_health(application: Application, now: float) -> HealthPlan:
    """Return which replicas to give up, which deployments to help, and which help is over."""
    plan = HealthPlan([], [], [])
    for replica in application.replicas.values():
        _judge(replica, now, plan)
    serving = application.serving
    if serving is not None and not application.deleting:
        for deployment in serving.spec.deployments:
            _help(application, serving, deployment, now, plan)
    return plan


def _judge(replica: Replica, now: float, plan: HealthPlan) -> None:
    trouble = replica.trouble
    if trouble is None or replica.phase is ReplicaPhase.STARTING:
        return
    limit_s = _limit_s(replica, trouble)
    if limit_s is None:
        return
    if trouble.since + limit_s > now:
        plan.wakes.append(trouble.since + limit_s)
        return
    seen = msgspec.structs.replace(trouble, for_s=now - trouble.since)
    plan.actions.append(GiveUpReplica(replica.replica_id, f"it was killed, because {describe_trouble(seen)}"))


def _limit_s(replica: Replica, trouble: Trouble) -> float | None:
    """Return how long a trouble may last; None when something else bounds it, or the replica is killed already."""
    if replica.given_up:
        return None
    if trouble.kind is TroubleKind.FROZEN:
        is_leaving = replica.phase is not ReplicaPhase.READY
        return LEAVING_FROZEN_AFTER_S if is_leaving and trouble.stopped else FROZEN_AFTER_S
    # One that leaves has the deadline of its drain.
    return health_limit_s(replica.launch.options) if replica.phase is ReplicaPhase.READY else None


def _help(
    application: Application, revision: Revision, deployment: DeploymentSpec, now: float, plan: HealthPlan
) -> None:
    """A deployment has one helper at most: where every replica blocks, so would any number of helpers."""
    generation = revision.generation(deployment.name)
    live = [r for r in application.of(deployment.name, generation) if r.live]
    own = [r for r in live if not r.launch.is_helper]
    helpers = [r for r in live if r.launch.is_helper]
    blocked = [r.trouble.since for r in own if r.trouble and r.trouble.kind is TroubleKind.BLOCKED]
    needs_help = any(since + HELP_AFTER_S <= now for since in blocked)
    plan.wakes.extend(since + HELP_AFTER_S for since in blocked if since + HELP_AFTER_S > now)
    if helpers:
        # Until the replacement of one that was killed answers, its helper is the one that does.
        wanted = application.count(revision, deployment)
        whole = sum(1 for r in own if r.phase is ReplicaPhase.READY) >= wanted
        if whole and not needs_help:
            plan.leaving.extend((helper, "its help is no longer needed") for helper in helpers)
        return
    # What holds a GPU cannot be doubled at will, and a refusal would hold up ordinary replacements.
    if not needs_help or exclusive(deployment.options.resources):
        return
    record = application.record(deployment.name, generation)
    if record.blocked:
        return
    if record.retry_at > now:
        plan.wakes.append(record.retry_at)
        return
    rank = application.count(revision, deployment)
    plan.actions.append(StartReplica(application.name, revision.number, deployment.name, rank, helper=True))
