"""An instance of Trygon on one machine: how it is asked for, and how it is found."""

from __future__ import annotations

from typing import Any

import msgspec

from trygon.spec.admin import AdminOptions

__all__ = ["InstanceConfig", "InstanceRecord", "LaunchReport"]


class InstanceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor is told when it is started."""

    name: str
    #: Sockets, lock and instance.json; short, owner-only, gone with the instance.
    runtime_dir: str
    #: Store and logs; owner-only, stays.
    state_dir: str
    host: str = "127.0.0.1"
    #: 0 takes a free port, which is read back from the record.
    port: int = 8000
    #: Ingress processes; 0 serves no HTTP.
    num_ingress: int = 1
    #: An attached instance dies with the process that started it and starts empty;
    #: a detached one restores what its store holds.
    attached: bool = True
    #: Given to each ingress untouched.
    http_options: dict[str, Any] = {}
    #: The admin port; None has none.
    admin: AdminOptions | None = None
    #: Custom resources of this machine, by name.
    resources: dict[str, float] = {}
    #: None finds the GPUs of the machine.
    gpu_ids: tuple[int, ...] | None = None
    #: Use the portable twins of what only Linux has.
    portable: bool = False
    #: What a replica's process runs, as "module:function" of a ReplicaLaunch.
    replica_main: str = "trygon.processes.replica:main"
    #: What an ingress process runs, as "module:function" of an IngressLaunch.
    ingress_main: str = "trygon.processes.ingress:main"
    #: What the admin process runs, as "module:function" of an AdminLaunch.
    admin_main: str = "trygon.processes.admin:main"


class InstanceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A running instance, as its instance.json says."""

    name: str
    #: The process to signal; it ends when everything of the instance has ended.
    pid: int
    supervisor_pid: int
    host: str
    #: 0 when the instance serves no HTTP.
    port: int
    controller_address: str
    runtime_dir: str
    state_dir: str
    log_dir: str
    attached: bool = True
    started_wall_s: float = 0.0
    #: "http", or "https" when the ingress speaks TLS.
    scheme: str = "http"
    #: Where the admin API is, as "http://127.0.0.1:8265"; empty without one.
    admin_url: str = ""
    version: str = ""


class LaunchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor answers its launcher: a record, or one paragraph of error."""

    record: InstanceRecord | None = None
    error: str = ""
