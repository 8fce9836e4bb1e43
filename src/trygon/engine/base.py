"""The seam between deciding and running: what the controller asks of a place where replicas run.

Every `start` ends in exactly one `ReplicaUnplaceable` or `ReplicaExited`; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from trygon.spec.application import ResourceRequest
from trygon.spec.launch import HelperLaunch, ReplicaLaunch

__all__ = [
    "Capabilities",
    "Engine",
    "EngineEvent",
    "Holding",
    "ReplicaExited",
    "ReplicaStarted",
    "ReplicaUnplaceable",
    "Resources",
    "RunningReplica",
    "ShutdownBegun",
    "Vitals",
    "exclusive",
]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do beyond starting and stopping."""

    #: `stop(force=True)` ends a replica that does not listen.
    kill: bool
    #: Replicas have their own environment, working directory and log file.
    environment: bool
    #: GPUs are assigned.
    gpus: bool


class Holding(msgspec.Struct, frozen=True):
    """What one replica holds exclusively."""

    replica_id: str
    gpus: float = 0.0
    resources: dict[str, float] = {}


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine has in total, and who holds what of it."""

    cpus: float
    gpus: float = 0.0
    custom: dict[str, float] = {}
    holdings: tuple[Holding, ...] = ()


class RunningReplica(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that runs, as a restarted controller finds it; its definition is not kept."""

    launch: ReplicaLaunch
    pid: int
    #: What the controller last wrote with `mark`.
    mark: str = ""


class ReplicaStarted(msgspec.Struct, frozen=True, tag=True):
    """The replica's process runs; whether its code loads is told over the control link."""

    replica_id: str
    pid: int
    gpu_ids: tuple[int, ...] | None = None


class ReplicaUnplaceable(msgspec.Struct, frozen=True, tag=True):
    """The replica was not started, because what it needs is not free at the moment or cannot be had."""

    replica_id: str
    reason: str


class ReplicaExited(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Nothing is left of the replica, neither its process nor what that had started."""

    replica_id: str
    pid: int = 0
    #: None when a signal ended it.
    exit_code: int | None = None
    signal: int | None = None
    #: The same in words.
    reason: str = ""
    #: True when the kernel killed it because memory ran out.
    out_of_memory: bool = False
    #: The most memory that its process held at once; 0 when unknown.
    peak_bytes: int = 0


class Vitals(msgspec.Struct, frozen=True):
    """What the kernel says of a replica's process at one moment."""

    #: Stopped by a signal (SIGSTOP): it does nothing until it is told to continue. A debugger's stop is none.
    stopped: bool
    #: On a processor, or waiting for one.
    running: bool
    #: Seconds of processor time that it has used.
    cpu_s: float
    #: Memory that it holds (resident set).
    memory_bytes: int = 0


class ShutdownBegun(msgspec.Struct, frozen=True, tag=True):
    """Somebody asked the whole instance to end; None gives every deployment its own timeout."""

    grace_s: float | None = None


EngineEvent = ReplicaStarted | ReplicaUnplaceable | ReplicaExited | ShutdownBegun


class Engine(Protocol):
    """Where replicas run."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        ...

    async def connect(self, on_event: Callable[[EngineEvent], None]) -> list[RunningReplica]:
        """Begin; return what runs already. Events come on the caller's loop."""
        ...

    def start(self, launch: ReplicaLaunch) -> None:
        """Start a replica; returns at once."""
        ...

    def stop(self, replica_id: str, *, force: bool) -> None:
        """Ask a replica to end, or end it and everything it started; unknown ids are ignored."""
        ...

    def mark(self, replica_id: str, mark: str) -> None:
        """Keep a word beside a running replica for a restarted controller."""
        ...

    def vitals(self, replica_id: str) -> Vitals | None:
        """Return how the replica's process is, or None when that cannot be told."""
        ...

    def start_helper(self, launch: HelperLaunch) -> None:
        """Keep a user-code helper running from now on; one of this key that runs already is left alone."""
        ...

    def stop_helper(self, key: str, *, forget: bool) -> None:
        """End a helper at once; another one takes its place, unless it is to be forgotten."""
        ...

    def resources(self) -> Resources:
        """Return what there is and who holds it."""
        ...

    def begin_shutdown(self, grace_s: float | None) -> None:
        """Stop taking requests from outside; ShutdownBegun follows."""
        ...

    def end(self) -> None:
        """End everything that is left, the controller too."""
        ...

    async def close(self) -> None:
        """Let go of the engine; replicas run on where the engine can live without the controller."""
        ...


def exclusive(request: ResourceRequest) -> bool:
    """Return whether a request holds something that nobody else can have meanwhile."""
    return request.num_gpus > 0 or any(amount > 0 for amount in request.resources.values())
