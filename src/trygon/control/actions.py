"""What is to be done, as the controller's pure core decides; the shell runs these and reports back events."""

from __future__ import annotations

from typing import Any

import msgspec

from trygon.scaling.context import LoadWindow
from trygon.scaling.decision import Decision
from trygon.spec.helper import UserFunction

__all__ = [
    "Action",
    "AskPolicy",
    "CompleteRevision",
    "DrainReplica",
    "FailRevision",
    "ForgetApplication",
    "GiveUpReplica",
    "KillReplica",
    "ReconfigureReplica",
    "ResizeDeployment",
    "StartReplica",
]


class StartReplica(msgspec.Struct, frozen=True):
    """Start one replica of a revision; the shell gives it an id and reports ReplicaRequested."""

    app_name: str
    revision: int
    deployment: str
    rank: int
    #: One beyond the wanted number, while the loop of another is blocked.
    helper: bool = False
    #: It takes requests of the serving revision as soon as it is ready.
    joins: bool = False


class ReconfigureReplica(msgspec.Struct, frozen=True):
    """Give a running replica the options of a revision; ReplicaReconfiguring, then ReplicaReconfigured follow."""

    replica_id: str
    revision: int


class DrainReplica(msgspec.Struct, frozen=True):
    """Let a replica finish what it has, then end it; ReplicaLeaving, then ReplicaEnded follow."""

    replica_id: str
    timeout_s: float
    reason: str


class KillReplica(msgspec.Struct, frozen=True):
    """End a replica now; ReplicaKilled, then ReplicaEnded follow."""

    replica_id: str


class GiveUpReplica(msgspec.Struct, frozen=True):
    """End a replica that no longer answers, now; ReplicaGivenUp, then ReplicaEnded follow."""

    replica_id: str
    reason: str


class CompleteRevision(msgspec.Struct, frozen=True):
    """Send requests to this revision from now on; RevisionCompleted follows."""

    app_name: str
    number: int


class FailRevision(msgspec.Struct, frozen=True):
    """Give the wanted revision up; RevisionFailed follows."""

    app_name: str
    number: int
    deployment: str
    error: str


class ResizeDeployment(msgspec.Struct, frozen=True):
    """Go by a decision on the number of replicas; DeploymentScaled follows."""

    app_name: str
    deployment: str
    revision: int
    decision: Decision
    #: The samples that it looked at.
    window: LoadWindow


class AskPolicy(msgspec.Struct, frozen=True):
    """Ask a user's policy; PolicyAsked, then PolicyAnswered follow."""

    app_name: str
    revision: int
    function: UserFunction
    #: One deployment, or all of the application where it is empty.
    owner: str
    #: Fields of an AutoscalingContext by deployment; times are monotonic.
    contexts: dict[str, dict[str, Any]]


class ForgetApplication(msgspec.Struct, frozen=True):
    """Nothing is left of a deleted application; ApplicationForgotten follows."""

    name: str


Action = (
    StartReplica
    | DrainReplica
    | KillReplica
    | GiveUpReplica
    | ReconfigureReplica
    | ResizeDeployment
    | AskPolicy
    | CompleteRevision
    | FailRevision
    | ForgetApplication
)
