"""What the machine does to a server: the clock jumps, descriptors run out, the disk is full."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.apps.serve_faults import Worker
from bench.errors import Unavailable
from bench.instance import Instance, alive, detached_instance, kill, running_instance, wait_for
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.systems import Probe, ask
from bench.table import Check, Report
from bench.traffic import Traffic, half_capacity, mixed
from bench.usage import cpu_s
from bench.wrk import require_wrk, wrk_version
from trygon import serve

__all__ = ["run_machine_faults"]

_PROBE = Probe("/", "GET", b"", None)
_REPLICAS = 2
_DAY_S = 86_400
_DISK_BYTES = 8 * 1024**2
_COLUMNS = ("fault", "sent", "failed", "worst second", "measured")
#: Descriptors that an exhausted ingress still has when the crowd comes.
_SPARE_DESCRIPTORS = 8


def run_machine_faults(settings: Settings) -> Report:
    """Hurt an instance in three ways; what this machine cannot do is left out, with the reason."""
    require_wrk()
    report = Report("clock", "Clock jumps of a day, no descriptors left, a full disk", _COLUMNS)
    report.venvs.append("main")
    report.commands.append("scripts/bench clock")
    report.facts = ["one run of each fault", wrk_version()]
    phases: dict[str, Callable[[Settings, Report], None]] = {
        "clock jumps": _clock_phase,
        "no descriptors left": _descriptors_phase,
        "disk full": _disk_phase,
    }
    for name, phase in phases.items():
        warn_if_busy(report)
        say(f"clock: {name}")
        try:
            phase(settings, report)
        except Unavailable as error:
            report.add_missing(name, str(error))
    return report


# ---- clock


def _clock_phase(settings: Settings, report: Report) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise Unavailable("libfaketime is not installed; on Debian or Ubuntu: apt-get install faketime")
    pause_s = settings.length_s(full=5, quick=2)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        offset = Path(folder, "offset")
        offset.write_text("+0\n")
        at_start = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_CACHE_DURATION": "1",
            # What a person or NTP sets is the wall clock; the monotonic one never jumps.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with running_instance(at_start=at_start) as instance:
            serve.run(Worker.options(num_replicas=_REPLICAS).bind(0))
            rps = half_capacity(instance.port, settings)
            before = _system(instance)
            jumps = []
            with Traffic(instance.port, mixed(rps, with_posts=True)) as traffic:
                for days in (1, 0, -1, 0):
                    offset.write_text(f"{days * _DAY_S:+d}\n")
                    time.sleep(pause_s)
                    jumps.append(_ahead_s(instance.port))
            kept = len(before & _system(instance))
            running = serve.status().applications["default"].status
    if abs(jumps[0] - _DAY_S) > 60 or abs(jumps[2] + _DAY_S) > 60:
        raise Unavailable(f"the clock did not jump as told, only by {jumps!r} s")
    seen = traffic.seen
    words = f"{kept} of {len(before)} processes kept, status {running}"
    report.rows.append(["clock jumps", str(len(seen.samples)), seen.kinds, f"{seen.worst_second:.0%}", words])
    report.raw.append(f"clock: ahead of the true time by {[round(each) for each in jumps]} s")
    report.checks += [
        Check("clock: failed requests", len(seen.failed), 0, is_floor=False),
        Check("clock: processes that were kept", kept, len(before)),
    ]
    report.notes.append(
        "clock: a day forward, back, a day backward, back, in all processes of the instance (libfaketime)"
    )


def _system(instance: Instance) -> set[int]:
    return instance.pids("controller") | instance.pids("ingress") | instance.pids("replica")


def _ahead_s(port: int) -> float:
    _, body = ask(port, Probe("/?now=1", "GET", b"", None))
    return float(json.loads(body)["now"]) - time.time()


# ---- descriptors


def _descriptors_phase(settings: Settings, report: Report) -> None:
    with running_instance() as instance:
        serve.run(Worker.options(num_replicas=_REPLICAS).bind(0))
        ingress = instance.only("ingress")
        with contextlib.ExitStack() as stack:
            kept = stack.enter_context(contextlib.closing(_connection(instance.port)))
            limits = resource.prlimit(ingress, resource.RLIMIT_NOFILE)
            stack.callback(_give_back, ingress, limits)
            used = len(os.listdir(f"/proc/{ingress}/fd"))
            resource.prlimit(ingress, resource.RLIMIT_NOFILE, (used + _SPARE_DESCRIPTORS, limits[1]))
            crowd = [stack.enter_context(_knock(instance.port)) for _ in range(200)]
            used_s, wall_s = cpu_s(ingress), time.monotonic()
            deadline = wall_s + settings.length_s(full=5, quick=2)
            answers = []
            while time.monotonic() < deadline:
                answers.append(_answer(kept))
                time.sleep(0.25)
            share = (cpu_s(ingress) - used_s) / (time.monotonic() - wall_s)
            _give_back(ingress, limits)
            freed_at = time.monotonic()
            wait_for(lambda: _serves(instance.port), "an answer on a new connection", timeout_s=30)
            back_s = time.monotonic() - freed_at
        same = ingress in instance.pids("ingress")
    bad = sum(status != 200 for status in answers)
    words = f"processor {share:.1%}, newcomers served after {back_s:.2f} s, process {'kept' if same else 'replaced'}"
    report.rows.append(["no descriptors left", str(len(answers)), str(bad), "-", words])
    report.checks += [
        Check("no descriptors: processor of the ingress", share, 0.1, is_floor=False),
        Check("no descriptors: failed requests on an open connection", bad, 0, is_floor=False),
        Check("no descriptors: newcomers served after", back_s, 1.0, "s", is_floor=False),
    ]
    report.notes.append(
        f"no descriptors left: the limit of the running ingress is {_SPARE_DESCRIPTORS} above what it has open, "
        f"{len(crowd)} clients connect; requests are those of one connection that was open before"
    )


def _give_back(pid: int, limits: tuple[int, int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def _connection(port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    connection.getresponse().read()
    # A connection that was closed is to be seen as a failure, and not opened again.
    connection.auto_open = 0
    return connection


def _knock(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def _answer(connection: http.client.HTTPConnection) -> int:
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        return response.status
    except (OSError, http.client.HTTPException):
        return 0


def _serves(port: int) -> bool:
    try:
        return ask(port, _PROBE, timeout_s=1)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


# ---- disk


def _disk_phase(settings: Settings, report: Report) -> None:
    with _small_disk() as home, contextlib.ExitStack() as stack:
        try:
            instance = stack.enter_context(detached_instance(home)).instance()
            is_lasting = True
        except Unavailable as error:
            report.notes.append(f"disk full: an attached instance, which keeps nothing, because {error}")
            instance = stack.enter_context(running_instance(home=home))
            is_lasting = False
        _fill_and_mend(instance, settings, report, is_lasting=is_lasting)
    report.notes.append(
        "disk full: the state directory is a tmpfs of 8 MiB; a replica is killed while it is full"
    )


def _fill_and_mend(instance: Instance, settings: Settings, report: Report, *, is_lasting: bool) -> None:
    app = Worker.options(num_replicas=_REPLICAS)
    serve.run(app.bind(0))
    rps = half_capacity(instance.port, settings)
    with Traffic(instance.port, mixed(rps)) as traffic:
        filler = _fill(instance.home)
        refusal = _refusal(lambda: serve.run(app.bind(1)))
        # An accepted deploy leaves old replicas for a moment: those are not replaced.
        wait_for(lambda: len(instance.pids("replica")) == _REPLICAS, "the old replicas to leave")
        before = instance.pids("replica")
        killed_at = kill(min(before))
        wait_for(lambda: len(alive(instance.pids("replica") - before)) > 0, "another replica", timeout_s=10)
        back_s = time.monotonic() - killed_at
        filler.unlink()
        recovery = _refusal(lambda: serve.run(app.bind(2)))
        time.sleep(1.0)
    label = json.loads(ask(instance.port, _PROBE)[1])["label"]
    seen = traffic.seen
    with_victim = sum(
        sample.at <= killed_at + 0.05 and sample.ended_at >= killed_at for sample in seen.samples
    )
    words = f"deploy {'refused' if refusal else 'accepted'}, replica replaced after {back_s:.2f} s"
    report.rows.append(["disk full", str(len(seen.samples)), seen.kinds, "-", words])
    report.raw.append(
        f"disk full: the deploy said: {refusal!r}; after space was made: {recovery or 'done'!r}"
    )
    report.checks += [
        Check(
            "disk full: failures, against those in flight at the kill",
            len(seen.failed),
            with_victim,
            is_floor=False,
        ),
        Check("disk full: deploys that served once there was space", recovery == "" and label == 2, 1),
    ]
    if is_lasting:
        report.checks.append(Check("disk full: deploys refused", bool(refusal), 1))


@contextlib.contextmanager
def _small_disk() -> Iterator[Path]:
    if os.geteuid() != 0:
        raise Unavailable("a small file system can be mounted by root only")
    with tempfile.TemporaryDirectory(prefix="bench-disk-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=0700", "tmpfs", folder]
        done = subprocess.run(mount, capture_output=True, text=True, check=False, timeout=20)
        if done.returncode != 0:
            raise Unavailable(f"no file system could be mounted: {done.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False, timeout=20)


def _fill(folder: Path) -> Path:
    """Write until nothing more fits."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return path


def _refusal(change: Callable[[], object]) -> str:
    """Return why a change was refused, or nothing when it was made."""
    try:
        change()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
