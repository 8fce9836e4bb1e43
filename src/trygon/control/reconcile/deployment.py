"""How many replicas of one deployment to start, and when: retries, back-off, giving up. Pure.

A failed start is tried again after a pause that doubles; after `min(max_constructor_retry_count,
3 * num_replicas)` failures in a row the revision is given up, unless it was complete before.
A replica that had been ready is replaced at once, until too many of a deployment die within a short while:
`control.reconcile.intensity` says how many, and how long the pauses are then.
"""

from __future__ import annotations

import msgspec

from trygon.control.state import Application, Revision, StartRecord
from trygon.spec.application import DeploymentOptions, DeploymentSpec

__all__ = [
    "after_failed_start",
    "after_ready",
    "has_failed",
    "max_failures",
    "may_start",
]

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0


def max_failures(options: DeploymentOptions) -> int:
    """Return how many failed starts in a row give a revision up."""
    return max(1, min(options.max_constructor_retry_count, 3 * options.num_replicas))


def has_failed(application: Application, revision: Revision, deployment: DeploymentSpec) -> bool:
    """Return whether a deployment cannot be started and should be given up."""
    record = application.record(deployment.name, revision.generation(deployment.name))
    return record.failures >= max_failures(deployment.options)


def after_ready(record: StartRecord) -> StartRecord:
    """Return the record after a replica became ready."""
    # A crash loop is ready once in every round; its count must survive that.
    if record.crashed:
        return msgspec.structs.replace(record, blocked="")
    return StartRecord(deaths=record.deaths)


def after_failed_start(record: StartRecord, error: str, now: float) -> StartRecord:
    """Return the record after a replica ended, or said it is broken, before it was ready."""
    failures = record.failures + 1
    return msgspec.structs.replace(
        record, failures=failures, error=error, retry_at=now + _pause_s(failures), crashed=False
    )


def may_start(record: StartRecord, now: float) -> tuple[bool, float | None]:
    """Return whether a replica may be started now, and if not, when to look again; None is after an event."""
    if record.blocked:
        return False, None
    if record.retry_at > now:
        return False, record.retry_at
    return True, None


def _pause_s(failures: int) -> float:
    return min(_FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20), _LONGEST_PAUSE_S)
