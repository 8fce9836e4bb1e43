"""What facts about a machine mean for Trygon, and the remedies. Pure."""

from __future__ import annotations

import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from trygon.processes.machine import MachineFacts

__all__ = ["Finding", "Verdict", "diagnose"]

_GIB = 1 << 30
_LOW_DISK_BYTES = 1 << 30
_NO_DISK_BYTES = 64 << 20
_FEW_FILES = 4096
_TOO_FEW_FILES = 256
#: A clock before this was never set.
_EARLIEST = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    #: It works, but not as well as it could, or somebody should look.
    NOTE = "note"
    BROKEN = "broken"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    check: str
    verdict: Verdict
    found: str
    #: What to do; empty when nothing is wrong.
    remedy: str = ""


def diagnose(facts: MachineFacts) -> list[Finding]:
    """Return a finding for each thing that was looked at."""
    found = [_python(facts), _open_files(facts), _proc(facts), _memfd(facts), _clock(facts)]
    if facts.settings_error:
        found.append(_broken("settings", facts.settings_error, "correct or unset the variable"))
    else:
        found += [_settings(facts), _home(facts), _runtime_dir(facts), _sockets(facts), _port(facts)]
    return [*found, _instances(facts), _state(facts), _memory(facts), _gpus(facts)]


def _ok(check: str, found: str) -> Finding:
    return Finding(check=check, verdict=Verdict.OK, found=found)


def _note(check: str, found: str, remedy: str) -> Finding:
    return Finding(check=check, verdict=Verdict.NOTE, found=found, remedy=remedy)


def _broken(check: str, found: str, remedy: str) -> Finding:
    return Finding(check=check, verdict=Verdict.BROKEN, found=found, remedy=remedy)


def _python(facts: MachineFacts) -> Finding:
    version = ".".join(map(str, facts.python))
    if facts.python < (3, 11, 0):
        return _broken("Python", version, "use Python 3.11 or newer")
    if facts.platform not in {"linux", "darwin"}:
        return _broken("Python", f"{version} on {facts.platform}", "use Linux")
    if facts.platform != "linux":
        return _note(
            "Python", f"{version} on {facts.platform}, which is untested", "use Linux for production"
        )
    return _ok("Python", f"{version}, {facts.cpus} CPUs")


def _open_files(facts: MachineFacts) -> Finding:
    most = facts.max_open_files
    remedy = "raise the hard limit: `ulimit -Hn 65536`, LimitNOFILE= of a systemd unit, or --ulimit nofile= of docker"
    if 0 < most < _TOO_FEW_FILES:
        return _broken("open files", f"at most {most} for each process", remedy)
    if 0 < most < _FEW_FILES:
        return _note(
            "open files",
            f"at most {most} for each process, so that an ingress takes fewer connections",
            remedy,
        )
    return _ok("open files", f"at most {most} for each process" if most else "no limit")


def _proc(facts: MachineFacts) -> Finding:
    if facts.platform == "linux" and not facts.has_proc:
        return _broken("/proc", "it is not there", "mount it: mount -t proc proc /proc")
    return _ok("/proc", "is there" if facts.has_proc else "not needed here")


def _memfd(facts: MachineFacts) -> Finding:
    if facts.memfd_error:
        return _note(
            "memfd",
            f"{facts.memfd_error}: large arrays travel through temporary files",
            "allow memfd_create in the sandbox or the seccomp profile",
        )
    return _ok("memfd", "large arrays travel through memory")


def _clock(facts: MachineFacts) -> Finding:
    now = datetime.datetime.fromtimestamp(facts.wall_s, tz=datetime.UTC)
    if now < _EARLIEST:
        return _note("clock", f"it says {now:%Y-%m-%d %H:%M} UTC", "set it, for logs and TLS: enable NTP")
    return _ok("clock", f"{now:%Y-%m-%d %H:%M} UTC")


def _settings(facts: MachineFacts) -> Finding:
    if facts.unknown_settings:
        names = ", ".join(facts.unknown_settings)
        return _note("settings", f"variables without effect: {names}", "correct their names or unset them")
    return _ok("settings", "every TRYGON_* and RAY_SERVE_* variable has an effect")


def _home(facts: MachineFacts) -> Finding:
    free = f"{facts.home_free_bytes / _GIB:.1f} GiB free"
    if facts.home_error:
        return _broken("state directory", facts.home_error, "set TRYGON_HOME to a directory of your own")
    if facts.home_free_bytes < _NO_DISK_BYTES:
        return _broken(
            "state directory", f"{facts.home}: {free}", "make room, or set TRYGON_HOME to another disk"
        )
    if facts.home_free_bytes < _LOW_DISK_BYTES:
        return _note(
            "state directory", f"{facts.home}: {free}", "make room, or set TRYGON_HOME to another disk"
        )
    return _ok("state directory", f"{facts.home}: {free}")


def _runtime_dir(facts: MachineFacts) -> Finding:
    if facts.runtime_dir_error:
        return _broken(
            "runtime directory", facts.runtime_dir_error, "set TRYGON_RUNTIME_DIR to a short path of your own"
        )
    return _ok("runtime directory", facts.runtime_dir)


def _sockets(facts: MachineFacts) -> Finding:
    found = f"up to {facts.longest_socket_bytes} bytes, {facts.max_socket_bytes} work"
    if facts.longest_socket_bytes > facts.max_socket_bytes:
        return _note(
            "socket paths", found, "give instances short names, or set TRYGON_RUNTIME_DIR to a shorter path"
        )
    return _ok("socket paths", found)


def _port(facts: MachineFacts) -> Finding:
    if not facts.port_error:
        return _ok("port", f"{facts.port} is free")
    if facts.port_instance:
        return _note(
            "port", f"{facts.port} is served by instance {facts.port_instance!r}", "use --port for another"
        )
    return _broken(
        "port",
        f"{facts.port} cannot be had: {facts.port_error}",
        "end the program that has it, or use --port for another",
    )


def _instances(facts: MachineFacts) -> Finding:
    if facts.leftovers:
        pids = " ".join(map(str, facts.leftovers))
        return _broken("instances", f"processes without their instance: {pids}", f"end them: kill -9 {pids}")
    if facts.stale:
        names = ", ".join(facts.stale)
        return _note(
            "instances", f"directories of dead instances: {names}", "none: they are removed by this look"
        )
    return _ok("instances", f"running: {', '.join(facts.running) or 'none'}")


def _state(facts: MachineFacts) -> Finding:
    if facts.corrupt:
        return _broken(
            "state files",
            f"unreadable and kept aside: {', '.join(facts.corrupt)}",
            "put a good copy in the place of each, or remove it to start empty",
        )
    return _ok("state files", "none was damaged")


def _memory(facts: MachineFacts) -> Finding:
    if not facts.memory_limit_bytes:
        return _ok("memory", "no limit of a control group")
    share = facts.memory_used_bytes / facts.memory_limit_bytes
    found = f"{facts.memory_used_bytes / _GIB:.1f} of {facts.memory_limit_bytes / _GIB:.1f} GiB that the control group allows"
    if share > 0.9:
        return _note(
            "memory", found, "raise the limit, or run fewer replicas: the kernel kills one beyond it"
        )
    return _ok("memory", found)


def _gpus(facts: MachineFacts) -> Finding:
    if facts.gpu_devices and not facts.gpus:
        return _note(
            "GPUs",
            f"{facts.gpu_devices} in /dev, none visible",
            "CUDA_VISIBLE_DEVICES or NVIDIA_VISIBLE_DEVICES hides them: unset it",
        )
    return _ok("GPUs", f"visible: {', '.join(map(str, facts.gpus))}" if facts.gpus else "none")
