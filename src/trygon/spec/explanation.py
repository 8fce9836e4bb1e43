"""Why an application is as it is: what `trygon explain` is answered with."""

from __future__ import annotations

import msgspec

__all__ = ["Decision", "DeploymentExplanation", "Explanation", "ReplicaExplanation"]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a decision log."""

    age_s: float
    text: str


class ReplicaExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: where it stands, and since when."""

    replica_id: str
    revision: int
    phase: str
    #: In this phase.
    age_s: float
    pid: int = 0
    #: Why it is on its way out.
    reason: str = ""
    #: Until it is killed; None when nothing is due.
    killed_in_s: float | None = None


class DeploymentExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment: how many replicas it lacks, what it waits for, and what was decided."""

    name: str
    status: str
    message: str = ""
    wanted: int = 0
    ready: int = 0
    #: How the number follows the load, line by line; empty without autoscaling.
    scaling: tuple[str, ...] = ()
    #: In words; empty when it has what it wants.
    waits_for: str = ""
    #: Until the next start is tried; None when no pause is under way.
    next_try_in_s: float | None = None
    #: Failed starts and early deaths in a row.
    failures: int = 0
    #: Of the last failed start or death, with the user's traceback.
    last_error: str = ""
    replicas: tuple[ReplicaExplanation, ...] = ()
    #: Oldest first.
    decisions: tuple[Decision, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """One application, or the part of it that was asked about."""

    application: str
    status: str
    message: str = ""
    #: The revision that is wanted, and the one that takes requests; 0 for none.
    revision: int = 0
    serving: int = 0
    #: The replica that was asked about; empty for all.
    replica_id: str = ""
    deployments: tuple[DeploymentExplanation, ...] = ()
