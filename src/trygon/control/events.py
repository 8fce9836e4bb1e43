"""What has happened, as the controller's pure core is told; every action ends in one of these."""

from __future__ import annotations

import msgspec

from trygon.control.reconcile.replica import Trouble
from trygon.control.state import Revision
from trygon.scaling.context import LoadWindow
from trygon.scaling.decision import Decision, Proposal
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.load import DeploymentLoad
from trygon.spec.routing import DeathCause, HttpTimeouts

__all__ = [
    "ApplicationDeleted",
    "ApplicationDeployed",
    "ApplicationForgotten",
    "CallerLost",
    "DeploymentScaled",
    "Event",
    "InstanceChanged",
    "LoadReported",
    "PolicyAnswered",
    "PolicyAsked",
    "ReplicaAdopted",
    "ReplicaDelayed",
    "ReplicaEnded",
    "ReplicaGivenUp",
    "ReplicaKilled",
    "ReplicaLeaving",
    "ReplicaMeasured",
    "ReplicaObserved",
    "ReplicaReconfigured",
    "ReplicaReconfiguring",
    "ReplicaReported",
    "ReplicaRequested",
    "ReplicaRunning",
    "ReplicaUnplaced",
    "RevisionCompleted",
    "RevisionFailed",
    "RouterTroubled",
    "TableServed",
    "Woken",
]


class ApplicationDeployed(msgspec.Struct, frozen=True):
    """A new revision of an application is wanted."""

    name: str
    revision: Revision


class ApplicationDeleted(msgspec.Struct, frozen=True):
    """An application is no longer wanted."""

    name: str


class InstanceChanged(msgspec.Struct, frozen=True):
    """Something is wanted of the instance as a whole."""

    #: The applications are deployed with it.
    target_capacity: float | None
    http_timeouts: HttpTimeouts | None


class ReplicaRequested(msgspec.Struct, frozen=True):
    """The engine was asked to start this replica."""

    launch: ReplicaLaunch


class ReplicaAdopted(msgspec.Struct, frozen=True):
    """A restarted controller found this replica running, last known as `phase`."""

    launch: ReplicaLaunch
    pid: int
    phase: str


class ReplicaRunning(msgspec.Struct, frozen=True):
    """The replica's process runs; its code is being loaded."""

    replica_id: str
    pid: int


class ReplicaReported(msgspec.Struct, frozen=True):
    """The replica said how it is: ready, or broken with the user's traceback."""

    replica_id: str
    #: Empty when it is ready.
    error: str = ""


class ReplicaDelayed(msgspec.Struct, frozen=True):
    """A replica that is starting has to wait for something that is being built."""

    replica_id: str
    #: For people.
    why: str


class ReplicaObserved(msgspec.Struct, frozen=True):
    """It was measured how the replica's process is."""

    replica_id: str
    #: None when it is well again.
    trouble: Trouble | None


class ReplicaUnplaced(msgspec.Struct, frozen=True):
    """The replica was not started; what it needs is held by others."""

    replica_id: str
    reason: str


class ReplicaEnded(msgspec.Struct, frozen=True):
    """Nothing is left of the replica."""

    replica_id: str
    reason: str
    #: Of a replica that served; None where no caller can have lost a request.
    cause: DeathCause | None = None


class ReplicaLeaving(msgspec.Struct, frozen=True):
    """The replica was told to finish and go; after `deadline` it is killed."""

    replica_id: str
    deadline: float
    reason: str = ""


class ReplicaKilled(msgspec.Struct, frozen=True):
    """The engine was told to end the replica."""

    replica_id: str


class ReplicaGivenUp(msgspec.Struct, frozen=True):
    """The replica was found beyond help, and the engine was told to end it."""

    replica_id: str
    reason: str


class ReplicaReconfiguring(msgspec.Struct, frozen=True):
    """The replica was told to take the options of this revision."""

    replica_id: str
    revision: int


class ReplicaReconfigured(msgspec.Struct, frozen=True):
    """The replica took the options of this revision, or said why it could not."""

    replica_id: str
    revision: int
    #: Empty when it took them.
    error: str = ""


class RevisionCompleted(msgspec.Struct, frozen=True):
    """Every replica of the wanted revision was ready at once; requests go to it from now on."""

    app_name: str
    number: int


class RevisionFailed(msgspec.Struct, frozen=True):
    """The wanted revision was given up; what served before serves on."""

    app_name: str
    number: int
    deployment: str
    error: str


class LoadReported(msgspec.Struct, frozen=True):
    """A caller said how much load it has."""

    #: Unique among the connections of a controller.
    caller: str
    loads: tuple[DeploymentLoad, ...]


class CallerLost(msgspec.Struct, frozen=True):
    """A caller is gone, and its load with it."""

    caller: str


class ReplicaMeasured(msgspec.Struct, frozen=True):
    """A replica's own numbers came in."""

    replica_id: str
    stats: dict[str, float]


class RouterTroubled(msgspec.Struct, frozen=True):
    """A caller could not route requests by the user's class; none of them means that it can again."""

    caller: str
    app_name: str
    deployment: str
    num_requests: int
    error: str


class DeploymentScaled(msgspec.Struct, frozen=True):
    """It was decided how many replicas a deployment shall have."""

    app_name: str
    deployment: str
    revision: int
    decision: Decision
    window: LoadWindow


class PolicyAsked(msgspec.Struct, frozen=True):
    """A user's policy was asked."""

    app_name: str
    revision: int
    owner: str


class PolicyAnswered(msgspec.Struct, frozen=True):
    """A user's policy answered, or failed."""

    app_name: str
    revision: int
    owner: str
    #: By deployment; one that is missing keeps its number.
    proposals: dict[str, Proposal]
    error: str = ""


class ApplicationForgotten(msgspec.Struct, frozen=True):
    """Nothing is left of a deleted application."""

    name: str


class TableServed(msgspec.Struct, frozen=True):
    """Every ingress routes by this version of the routing table, or a later one.

    0 while some ingress is not there: nothing is served then, whatever was before.
    """

    version: int


class Woken(msgspec.Struct, frozen=True):
    """A time that a plan asked for has come."""

    #: The applications whose plans asked for it; None means all of them.
    names: tuple[str, ...] | None = None


Event = (
    ApplicationDeployed
    | ApplicationDeleted
    | InstanceChanged
    | ReplicaRequested
    | ReplicaAdopted
    | ReplicaRunning
    | ReplicaReported
    | ReplicaDelayed
    | ReplicaObserved
    | ReplicaUnplaced
    | ReplicaEnded
    | ReplicaLeaving
    | ReplicaKilled
    | ReplicaGivenUp
    | ReplicaReconfiguring
    | ReplicaReconfigured
    | RevisionCompleted
    | RevisionFailed
    | ApplicationForgotten
    | TableServed
    | LoadReported
    | CallerLost
    | ReplicaMeasured
    | RouterTroubled
    | DeploymentScaled
    | PolicyAsked
    | PolicyAnswered
    | Woken
)
