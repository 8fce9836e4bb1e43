"""What this machine and this user's environment are like, as far as it decides whether Trygon works here."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import threading
from pathlib import Path

import msgspec

from trygon.client.instances import list_running
from trygon.client.rundir import MAX_SOCKET_PATH_BYTES, RunDir, check_private
from trygon.clock import RealClock
from trygon.config import Settings, SettingsError, read_settings
from trygon.engine.environment import visible_gpus
from trygon.errors import InstanceError

__all__ = ["MachineFacts", "look_at_machine"]

#: The longest name of an instance, and of a socket in its directory.
_LONGEST_SOCKET = "/" + "n" * 24 + "/controller.sock"
#: What the processes of an instance need to end after its supervisor.
_END_S = 1.0
_MEMBERS = ("trygon-replica", "trygon-ingress", "trygon-control")


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts; what they mean is judged elsewhere."""

    python: tuple[int, int, int]
    platform: str
    wall_s: float
    cpus: int
    max_open_files: int
    has_proc: bool
    memfd_error: str
    #: Of a malformed variable; the rest of the settings is then unknown.
    settings_error: str = ""
    #: Variables that look like settings and are none.
    unknown_settings: tuple[str, ...] = ()
    home: str = ""
    home_error: str = ""
    home_free_bytes: int = 0
    runtime_dir: str = ""
    runtime_dir_error: str = ""
    longest_socket_bytes: int = 0
    max_socket_bytes: int = MAX_SOCKET_PATH_BYTES
    port: int = 0
    port_error: str = ""
    #: Name of the instance of this user that has the port.
    port_instance: str = ""
    running: tuple[str, ...] = ()
    #: Directories of instances that died.
    stale: tuple[str, ...] = ()
    #: Ids of processes that outlived their instance.
    leftovers: tuple[int, ...] = ()
    #: State files that were unreadable and kept aside.
    corrupt: tuple[str, ...] = ()
    #: 0 without a limit.
    memory_limit_bytes: int = 0
    memory_used_bytes: int = 0
    gpus: tuple[int, ...] = ()
    gpu_devices: int = 0


def look_at_machine(port: int) -> MachineFacts:
    """Return the facts; changes nothing that is not stale.

    Args:
        port: The HTTP port that an instance would be started with.
    """
    limit, used = _memory_limit()
    devices = os.listdir("/dev")
    facts = MachineFacts(
        python=sys.version_info[:3],
        platform=sys.platform,
        wall_s=RealClock.wall(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        max_open_files=_max_open_files(),
        has_proc=os.path.isdir("/proc/self/fd"),
        memfd_error=_memfd_error(),
        memory_limit_bytes=limit,
        memory_used_bytes=used,
        gpus=visible_gpus(os.environ, devices),
        gpu_devices=sum(1 for name in devices if name.startswith("nvidia") and name[6:].isdigit()),
        port=port,
        leftovers=_lasting_leftovers(),
    )
    try:
        settings = read_settings()
    except SettingsError as error:
        return msgspec.structs.replace(facts, settings_error=str(error))
    return _with_places(facts, settings)


def _with_places(facts: MachineFacts, settings: Settings) -> MachineFacts:
    home, runtime_dir = settings.home, settings.runtime_dir
    stale = _stale(runtime_dir)
    runtime_dir_error = ""
    running = []
    try:
        check_private(runtime_dir)
        running = list_running(runtime_dir)
    except InstanceError as error:
        runtime_dir_error = str(error)
    home_error, free = _writable(home)
    return msgspec.structs.replace(
        facts,
        unknown_settings=settings.without_effect,
        home=str(home),
        home_error=home_error,
        home_free_bytes=free,
        runtime_dir=str(runtime_dir),
        runtime_dir_error=runtime_dir_error or _writable(runtime_dir)[0],
        longest_socket_bytes=len(os.fsencode(f"{runtime_dir}{_LONGEST_SOCKET}")),
        port_error=_port_error(settings.default_http_host, facts.port),
        port_instance=next((record.name for record in running if record.port == facts.port), ""),
        running=tuple(record.name for record in running),
        stale=stale,
        corrupt=tuple(sorted(str(path) for path in home.glob("instances/*/*.corrupt"))),
    )


def _max_open_files() -> int:
    """Return what processes may raise their limit to; 0 without one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 0 if hard == resource.RLIM_INFINITY else hard


def _memfd_error() -> str:
    if not hasattr(os, "memfd_create"):
        return "this system has none"
    try:
        os.close(os.memfd_create("trygon-doctor", os.MFD_CLOEXEC))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _writable(path: Path) -> tuple[str, int]:
    """Return why nothing can be made in a directory, or in the one that it would be made in; and its free bytes."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{str(existing)!r} cannot be written to", 0
    space = os.statvfs(existing)
    return "", space.f_bavail * space.f_frsize


def _port_error(host: str, port: int) -> str:
    if not port:
        return ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _stale(runtime_dir: Path) -> tuple[str, ...]:
    try:
        folders = sorted(path for path in runtime_dir.iterdir() if (path / "lock").exists())
    except OSError:
        return ()
    return tuple(path.name for path in folders if not RunDir.is_alive(path))


def _lasting_leftovers() -> tuple[int, ...]:
    """Return the leftovers that do not end by themselves, as those of a supervisor that was just killed do."""
    proc = Path("/proc")
    first = _leftovers(proc)
    if not first:
        return ()
    threading.Event().wait(_END_S)
    return tuple(pid for pid in _leftovers(proc) if pid in first)


def _leftovers(proc: Path) -> tuple[int, ...]:
    """Return the user's processes of instances whose supervisor is gone."""
    found = []
    for folder in proc.glob("[0-9]*"):
        # Processes come and go meanwhile.
        with contextlib.suppress(OSError, ValueError, IndexError):
            name = (folder / "comm").read_text().strip()
            if not name.startswith(_MEMBERS) or folder.stat().st_uid != os.getuid():
                continue
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z":
                continue
            if not (proc / parent / "comm").read_text().startswith("trygon-"):
                found.append(int(folder.name))
    return tuple(sorted(found))


def _memory_limit() -> tuple[int, int]:
    """Return the limit and the use of memory of this control group, in bytes; zeros without a limit."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            most = int(Path(limit).read_text())
            # The old kind says "no limit" with a number close to 2**63.
            return (most, int(Path(used).read_text())) if most < 1 << 60 else (0, 0)
    return 0, 0
