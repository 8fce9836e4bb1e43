"""What an engine needs to start one replica, and a supervisor to start one ingress or the admin process."""

from __future__ import annotations

from typing import Any

import msgspec

from trygon.spec.admin import AdminOptions
from trygon.spec.application import CodeLocation, DeploymentOptions
from trygon.spec.helper import UserFunction
from trygon.spec.packages import PackageEnvironment

__all__ = ["AdminLaunch", "HelperLaunch", "IngressLaunch", "ReplicaLaunch"]


class ReplicaLaunch(msgspec.Struct, frozen=True, kw_only=True):
    """One replica to be: its identity, its code, and where it listens."""

    #: Unique in the instance: "app#deployment#suffix"; the suffix is Ray Serve's replica tag.
    replica_id: str
    app_name: str
    deployment: str
    #: Application revision this replica belongs to.
    revision: int
    #: True for the deployment that takes the application's HTTP requests.
    is_ingress: bool
    route_prefix: str | None
    definition: bytes
    options: DeploymentOptions
    code: CodeLocation
    #: Unix socket path the replica binds (mode 0600) before it reports ready.
    address: str
    #: Unix socket path of the controller.
    controller_address: str
    #: File that stdout and stderr go to; empty leaves them alone (in-process engine).
    log_path: str
    #: 0 <= rank < world_size among the replicas of the deployment.
    rank: int = 0
    world_size: int = 1
    #: True for one beyond num_replicas, which stands in while the loop of another is blocked.
    is_helper: bool = False
    #: CUDA_VISIBLE_DEVICES for this replica; None leaves the variable alone, () hides all GPUs.
    gpu_ids: tuple[int, ...] | None = None
    #: Deployments of the same application that hold handles of this one; they drain first.
    parents: tuple[str, ...] = ()
    #: File with the sources that the application's own modules had when it was built; empty for none.
    snapshot_path: str = ""
    #: The same for the modules of the deployment's own `module_path`.
    own_snapshot_path: str = ""
    #: The LoggingConfig of the application, or else the instance, as JSON values, or None.
    app_logging: dict[str, Any] | None = None
    #: For each deployment of its revision, the number of the revision that brought the code that runs.
    #: Replicas with the same number are interchangeable, whatever revision they were started for.
    generations: dict[str, int] = {}
    #: It takes requests of the revision that serves as soon as it is ready, before its own is complete.
    joins: bool = False

    @property
    def packages(self) -> PackageEnvironment | None:
        """The packages it runs with; None for those that Trygon runs with."""
        own = self.options.packages
        return (self.code.packages if own is None else own) or None

    @property
    def generation(self) -> int:
        """The revision that brought the code this replica runs."""
        return self.generations.get(self.deployment, self.revision)

    @property
    def replica_tag(self) -> str:
        """The short unique id that Ray Serve calls replica_tag."""
        return self.replica_id.rsplit("#", 1)[-1]


class IngressLaunch(msgspec.Struct, frozen=True, kw_only=True):
    """One ingress process to be; it serves until SIGTERM, then finishes what it has and exits with 0."""

    #: 0 <= slot < number of ingress processes; also the peer id of its Hello.
    slot: int
    #: Inherited listening TCP socket, non-blocking; the supervisor keeps it open for the slot's successor.
    listen_fd: int
    #: Unix socket path of the controller.
    controller_address: str
    host: str
    port: int
    #: The HTTP options of the instance as JSON values.
    http_options: dict[str, Any] = {}
    log_dir: str = ""
    runtime_dir: str = ""


class AdminLaunch(msgspec.Struct, frozen=True, kw_only=True):
    """The admin process to be; it serves until SIGTERM, then finishes what it has and exits with 0."""

    #: Inherited listening TCP socket, non-blocking; the supervisor keeps it open for the next one.
    listen_fd: int
    controller_address: str
    options: AdminOptions
    #: Owner-only file with the bearer token.
    token_path: str
    #: The HTTP options of the instance as JSON values; its TLS options hold here too, off loopback.
    http_options: dict[str, Any] = {}


class HelperLaunch(msgspec.Struct, frozen=True, kw_only=True):
    """One user-code helper to be: whose code it runs, and where it is asked."""

    #: Unique in the instance: "app#revision".
    key: str
    code: CodeLocation
    #: Unix socket that the supervisor listens on, and keeps for the next one.
    address: str
    log_path: str = ""
    #: As in ReplicaLaunch.
    snapshot_path: str = ""
    #: The router classes of the user's, by deployment.
    routers: dict[str, UserFunction] = {}
    #: The inherited listening socket.
    listen_fd: int = -1
