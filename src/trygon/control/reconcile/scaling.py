"""Which deployments are due for a decision on their number of replicas, and what it is. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import msgspec

from trygon.control.actions import AskPolicy, ResizeDeployment
from trygon.control.reconcile.replica import ReplicaPhase
from trygon.control.scaler import Scaler
from trygon.control.state import Application, Revision
from trygon.scaling.context import LoadWindow
from trygon.scaling.decision import Decision, decide, window_demand
from trygon.spec.application import DeploymentSpec
from trygon.spec.autoscaling import AggregationFunction

__all__ = ["plan_scaling", "scaled_deployments"]

_Due = tuple[DeploymentSpec, Scaler]
_AGGREGATES: dict[AggregationFunction, Callable[[list[float]], float]] = {
    AggregationFunction.MEAN: fmean,
    AggregationFunction.MAX: max,
    AggregationFunction.MIN: min,
}


def scaled_deployments(application: Application) -> Iterator[tuple[DeploymentSpec, Scaler]]:
    """Yield the deployments of the revision that serves whose number of replicas follows their load."""
    serving = application.serving
    if serving is None or application.deleting or not application.scalers:
        return
    for deployment in serving.spec.deployments:
        scaler = application.scaler(serving, deployment.name)
        if scaler is not None:
            yield deployment, scaler


def plan_scaling(
    application: Application, now: float
) -> tuple[list[ResizeDeployment | AskPolicy], list[float]]:
    """Return the decisions that are due, and when the next ones are."""
    serving = application.serving
    actions: list[ResizeDeployment | AskPolicy] = []
    wakes: list[float] = []
    shared: list[_Due] = []
    for deployment, scaler in scaled_deployments(application):
        assert serving is not None
        if scaler.look_at is None or scaler.is_asking:
            continue
        if scaler.look_at > now:
            wakes.append(scaler.look_at)
        elif scaler.policy is None or scaler.is_answered:
            actions.append(_scale(application, serving, deployment, scaler, now))
        elif scaler.is_shared:
            shared.append((deployment, scaler))
        else:
            actions.append(_ask(application, serving, [(deployment, scaler)], now, owner=deployment.name))
    if shared and serving is not None:
        # One answer is for all of them, those that are not due yet included.
        everybody = [due for due in scaled_deployments(application) if due[1].is_shared]
        actions.append(_ask(application, serving, everybody, now, owner=""))
    return actions, wakes


def _scale(
    application: Application, serving: Revision, deployment: DeploymentSpec, scaler: Scaler, now: float
) -> ResizeDeployment:
    ready = application.ready_count(deployment, serving.generation(deployment.name))
    window = scaler.sample(now, ready=ready)
    if scaler.policy is not None and scaler.proposal is None:
        decision = _kept(scaler)
    else:
        demand = window_demand(
            scaler.config,
            window,
            now,
            ready=ready,
            target=scaler.target,
            start_up_s=_start_up_s(application, serving, deployment),
        )
        decision = decide(scaler.config, scaler.bounds, scaler.state, demand, now, proposed=scaler.proposal)
    return ResizeDeployment(application.name, deployment.name, serving.number, decision, window)


def _start_up_s(application: Application, serving: Revision, deployment: DeploymentSpec) -> float:
    """Return how long the slowest of the replicas that work took to start; 0 where none does."""
    replicas = application.of(deployment.name, serving.generation(deployment.name))
    return max((r.since - r.started_at for r in replicas if r.phase is ReplicaPhase.READY), default=0.0)


def _kept(scaler: Scaler) -> Decision:
    """Without a word from the policy the number stays, and no delay runs on."""
    last_line = scaler.policy_error.strip().rpartition("\n")[2]
    why = (
        f"the policy failed, and the number stays: {last_line}"
        if last_line
        else "the policy leaves it as it is"
    )
    return Decision(
        target=scaler.count,
        state=msgspec.structs.replace(scaler.state, rising_since=None, falling_since=None),
        wake_at=None,
        proposed=scaler.count,
        why=why,
        held_by="policy",
    )


def _ask(
    application: Application, serving: Revision, dues: list[_Due], now: float, *, owner: str
) -> AskPolicy:
    function = dues[0][1].policy
    assert function is not None, "only a policy is asked"
    contexts = {
        deployment.name: _context(application, serving, deployment, scaler, now)
        for deployment, scaler in dues
    }
    return AskPolicy(application.name, serving.number, function, owner, contexts)


def _context(
    application: Application, serving: Revision, deployment: DeploymentSpec, scaler: Scaler, now: float
) -> dict[str, Any]:
    """Return the fields of an AutoscalingContext as plain values; its times are monotonic."""
    config, name = scaler.config, deployment.name
    ready = [
        r.replica_id for r in application.of(name, serving.generation(name)) if r.phase is ReplicaPhase.READY
    ]
    window = scaler.sample(now, ready=len(ready))
    stats = scaler.stats_of(ready)
    aggregate = _AGGREGATES[config.aggregation_function]
    return {
        "deployment_name": name,
        "app_name": application.name,
        "current_num_replicas": len(ready),
        "target_num_replicas": scaler.target,
        "running_replicas": ready,
        **_load(scaler, window, now),
        "aggregated_metrics": {
            metric: {key: aggregate([value for _, value in told]) for key, told in by_replica.items()}
            for metric, by_replica in stats.items()
        },
        "raw_metrics": stats,
        "capacity_adjusted_min_replicas": scaler.bounds.low,
        "capacity_adjusted_max_replicas": scaler.bounds.high,
        "policy_state": scaler.state.policy_state,
        "last_scale_up_time": scaler.state.last_up,
        "last_scale_down_time": scaler.state.last_down,
        "current_time": now,
        "config": config.to_builtins(),
        "ongoing_by_replica": scaler.ongoing,
    }


def _load(scaler: Scaler, window: LoadWindow, now: float) -> dict[str, Any]:
    look_back_s = scaler.config.look_back_period_s
    total = window.total(now, look_back_s, scaler.config.aggregation_function)
    now_total = window.samples[-1].total
    # As the requests are split now, for the aggregate knows only their sum.
    share = window.samples[-1].queued / now_total if now_total else 0.0
    completed = window.rate("completions", now, look_back_s)
    return {
        "total_num_requests": total,
        "total_queued_requests": total * share,
        "total_running_requests": total * (1.0 - share),
        "arrival_rate": window.rate("arrivals", now, look_back_s),
        "completion_rate": completed,
        "mean_wait_s": total * share / completed if completed else None,
        "mean_service_s": total * (1.0 - share) / completed if completed else None,
    }
