"""One deployment whose number of replicas follows its load: what was heard, and what was decided. Changed by `fold`."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import msgspec

from trygon.scaling.context import LoadSample, LoadWindow
from trygon.scaling.decision import Bounds, Decision, Proposal, ScalingState
from trygon.spec.autoscaling import AutoscalingConfig
from trygon.spec.helper import UserFunction
from trygon.spec.load import DeploymentLoad

__all__ = ["ScaleRecord", "Scaler", "StatsRecord", "report_period_s"]

#: Reports that a caller with load may skip before it counts as gone: its process hangs.
_SKIPPED = 5
#: But for that long it is waited for.
_LEAST_PATIENCE_S = 3.0
_LONGEST_PERIOD_S = 1.0
_NUM_RECORDS = 20
#: Words of each replica that are kept at most.
_NUM_STATS = 60


class ScaleRecord(msgspec.Struct, frozen=True):
    """One change of the number, for people."""

    at: float
    before: int
    after: int
    why: str


class _Heard(msgspec.Struct, frozen=True):
    at: float
    load: DeploymentLoad


def report_period_s(config: AutoscalingConfig) -> float:
    """Return how often callers report their load; a short look-back needs more than one report."""
    return min(_LONGEST_PERIOD_S, config.metrics_interval_s, max(0.05, config.look_back_period_s / 4))


class StatsRecord(msgspec.Struct, frozen=True):
    """What a replica said of itself at one moment."""

    at: float
    stats: dict[str, float]


class Scaler:
    """The autoscaler of a deployment.

    Args:
        config: Its options.
        bounds: What the number must lie between.
        target: Replicas to begin with.
        policy: The user's function that decides; None for the default policy.
        is_shared: Whether that function decides for the whole application.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        config: AutoscalingConfig,
        bounds: Bounds,
        target: int,
        *,
        policy: UserFunction | None = None,
        is_shared: bool = False,
        now: float,
    ) -> None:
        self.is_shared = is_shared
        self.config = config
        self.bounds = bounds
        self.policy = policy
        #: How many replicas there shall be; within the bounds of its revision once a decision was made.
        self.target = target
        #: What it was before it was last changed, for the status; the same when it never was.
        self.before = target
        self.state = ScalingState()
        self.window = LoadWindow()
        #: The last decision; None before the first.
        self.decision: Decision | None = None
        #: When to decide again; None after a report.
        self.look_at: float | None = now
        self.decided_at = now
        #: Changes, oldest first.
        self.records: tuple[ScaleRecord, ...] = ()
        #: The question to the user's policy that is under way, what it said last, and what went wrong with it.
        self.is_asking = False
        self.is_answered = False
        self.proposal: Proposal | None = None
        self.policy_error = ""
        #: True while a restarted controller counts the replicas that it finds.
        self.is_adopting = False
        #: What the `record_autoscaling_stats` of each replica said in the look-back period, by replica id.
        self.stats: dict[str, tuple[StatsRecord, ...]] = {}
        #: The last report of each caller that has load.
        self._heard: dict[str, _Heard] = {}
        self._arrivals = self._completions = 0

    @property
    def count(self) -> int:
        """How many replicas there shall be now."""
        return self.bounds.clip(self.target)

    @property
    def has_policy(self) -> bool:
        """Whether a function of the user's decides, who may look at anything, the time for instance."""
        return self.policy is not None

    @property
    def period_s(self) -> float:
        """How often callers report, and at most how often it is decided."""
        return report_period_s(self.config)

    @property
    def ongoing(self) -> dict[str, int]:
        """Requests in work by replica id, as last heard."""
        found: dict[str, int] = {}
        for heard in self._heard.values():
            for replica_id, count in heard.load.replicas.items():
                found[replica_id] = found.get(replica_id, 0) + count
        return found

    @property
    def queued(self) -> float:
        """Requests that wait, as last heard."""
        return sum(heard.load.queued for heard in self._heard.values())

    @property
    def running(self) -> float:
        """Requests in work, as last heard."""
        return sum(heard.load.running for heard in self._heard.values())

    def is_same(self, config: AutoscalingConfig, bounds: Bounds, policy: UserFunction | None) -> bool:
        """Whether a revision with these goes on with this one."""
        return self.config == config and self.bounds == bounds and self.policy == policy

    # ---- what is heard

    def hear(self, caller: str, load: DeploymentLoad, now: float) -> bool:
        """Take a report; return whether it must be decided at once."""
        self._arrivals += load.arrivals
        self._completions += load.completions
        if load.is_idle:
            self._heard.pop(caller, None)
        else:
            self._heard[caller] = _Heard(now, load)
        if self.count == 0 and load.queued:
            self.look_at = now
            return True
        due = self.decided_at + self.period_s
        self.look_at = due if self.look_at is None else min(self.look_at, due)
        # Callers report when they do, and each period is decided once.
        return True

    def lose(self, caller: str, now: float) -> bool:
        """Forget a caller that is gone; return whether it had load."""
        if self._heard.pop(caller, None) is None:
            return False
        self.look_at = now if self.look_at is None else min(self.look_at, now + self.period_s)
        return True

    def _fresh(self, now: float) -> dict[str, _Heard]:
        """Return the reports but of callers that do not report any more: they are frozen, or cannot reach us."""
        patience_s = max(_LEAST_PATIENCE_S, _SKIPPED * self.period_s)
        return {name: heard for name, heard in self._heard.items() if heard.at > now - patience_s}

    def answer(self, proposal: Proposal | None, error: str, now: float) -> None:
        """Take what the user's policy says; without a proposal the number stays."""
        self.is_asking = False
        self.is_answered = True
        self.proposal = proposal
        self.policy_error = error
        self.look_at = now

    # ---- what is decided

    def sample(self, now: float, *, ready: int) -> LoadWindow:
        """Return the window with what all callers have together now."""
        window = self.window
        keep_s = self.config.look_back_period_s
        last = window.samples[-1] if window.samples else None
        if last is not None and not last.total and now - last.at > 1.5 * self.period_s:
            # Nobody reports while there is no load; what begins now did not stand all the while.
            window = window.after(LoadSample(at=now - self.period_s, replicas=ready), keep_s)
        fresh = self._fresh(now).values()
        sample = LoadSample(
            at=now,
            queued=sum(heard.load.queued for heard in fresh),
            running=sum(heard.load.running for heard in fresh),
            arrivals=self._arrivals,
            completions=self._completions,
            replicas=ready,
        )
        return window.after(sample, keep_s)

    def take(self, decision: Decision, window: LoadWindow, now: float) -> None:
        """Go by a decision from now on."""
        self.window = window
        self._heard = self._fresh(now)
        self.is_answered = False
        self._arrivals = self._completions = 0
        self.decided_at = now
        has_changed = decision.target != self.target
        if has_changed:
            self.records = (
                *self.records[-(_NUM_RECORDS - 1) :],
                ScaleRecord(now, self.target, decision.target, decision.why),
            )
            self.before = self.target
            self.target = decision.target
        self.state = decision.state
        self.decision = decision
        # One change may be the first of two: from three to one, and then to none.
        self.look_at = now + self.period_s if has_changed else self._next_look(decision, now)

    def _next_look(self, decision: Decision, now: float) -> float | None:
        is_quiet = not any(sample.total for sample in self.window.samples)
        if is_quiet and decision.wake_at is None and not self.has_policy:
            return None
        regular = now + self.period_s
        return regular if decision.wake_at is None else max(now, min(decision.wake_at, regular))

    def measure(self, replica_id: str, stats: dict[str, float], known: Container[str], now: float) -> None:
        """Take what a replica says of itself; `known` are the replicas that there are."""
        kept = [r for r in self.stats.get(replica_id, ()) if r.at > now - self.config.look_back_period_s]
        records = (*kept[-(_NUM_STATS - 1) :], StatsRecord(now, stats))
        self.stats = {key: value for key, value in self.stats.items() if key in known} | {replica_id: records}

    def stats_of(self, replica_ids: Iterable[str]) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """Return what these replicas said, by name, then replica id: (monotonic time, value), oldest first."""
        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for replica_id in replica_ids:
            for record in self.stats.get(replica_id, ()):
                for name, value in record.stats.items():
                    found.setdefault(name, {}).setdefault(replica_id, []).append((record.at, value))
        return found

    def summary(self, now: float) -> dict[str, Any]:
        """Return what people want to know, as JSON values."""
        decision = self.decision
        return {
            "target_num_replicas": self.count,
            "min_replicas": self.bounds.low,
            "max_replicas": self.bounds.high,
            "queued_requests": round(self.queued, 2),
            "running_requests": round(self.running, 2),
            "decision": decision.why if decision is not None else "",
            "held_by": decision.held_by if decision is not None else "",
            "errors": [self.policy_error] if self.policy_error else [],
            "decisions": [
                {
                    "age_s": round(now - record.at, 3),
                    "prev_num_replicas": record.before,
                    "curr_num_replicas": record.after,
                    "reason": record.why,
                }
                for record in self.records
            ],
        }
