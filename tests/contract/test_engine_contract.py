"""What every engine promises, on the local one (a real supervisor and real processes) and the in-process one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from tests.contract.engine_host import run_thread
from tests.waiting import wait_until_async
from trygon.engine.base import (
    Engine,
    EngineEvent,
    Holding,
    ReplicaExited,
    ReplicaStarted,
    ReplicaUnplaceable,
    ShutdownBegun,
)
from trygon.engine.inprocess import InProcessEngine
from trygon.engine.ledger import Ledger
from trygon.engine.local import LocalEngine
from trygon.spec.application import CodeLocation, DeploymentOptions, ResourceRequest
from trygon.spec.launch import ReplicaLaunch

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("local", "local-twins", "inprocess")

T = TypeVar("T")


class Bench:
    """An engine under test, and what it told."""

    def __init__(self, engine: Engine, folder: Path, host_pid: int) -> None:
        self.engine = engine
        self.folder = folder
        self.host_pid = host_pid
        self.events: list[EngineEvent] = []

    def launch(self, tag: str, script: str = "wait", **fields: Any) -> ReplicaLaunch:
        given: dict[str, Any] = {"options": DeploymentOptions(), "code": CodeLocation()}
        return ReplicaLaunch(
            replica_id=f"app#Main#{tag}",
            app_name="app",
            deployment="Main",
            revision=1,
            is_ingress=True,
            route_prefix="/",
            definition=script.encode(),
            address=str(self.folder / f"{tag}.sock"),
            controller_address="",
            log_path=str(self.folder / f"{tag}.log") if self.engine.capabilities.environment else "",
            **{**given, **fields},
        )

    async def start(self, tag: str, script: str = "wait", **fields: Any) -> ReplicaStarted:
        """Start a replica and wait until it is ready to be stopped."""
        launch = self.launch(tag, script, **fields)
        self.engine.start(launch)
        await wait_until_async(lambda: os.path.exists(launch.address), f"replica {tag}")
        return await self.event(ReplicaStarted, tag)

    async def event(self, kind: type[T], tag: str = "") -> T:
        """Wait for an event of a replica."""

        def found() -> T | None:
            return next(
                (
                    e
                    for e in self.events
                    if isinstance(e, kind) and getattr(e, "replica_id", "").endswith(tag)
                ),
                None,
            )

        event = await wait_until_async(found, f"{kind.__name__} of {tag or 'the engine'}")
        assert event is not None
        return event

    def exits(self, tag: str) -> int:
        """Return how many ends were told for a replica."""
        return sum(1 for e in self.events if isinstance(e, ReplicaExited) and e.replica_id.endswith(tag))


@contextlib.asynccontextmanager
async def open_bench(name: str, folder: Path) -> AsyncIterator[Bench]:
    if name == "inprocess":
        bench = Bench(InProcessEngine(run_thread), folder, os.getpid())
        assert [] == await bench.engine.connect(bench.events.append)
        yield bench
        await bench.engine.close()
        return
    command = [sys.executable, "-m", "tests.contract.engine_host", str(folder), str(name == "local-twins")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert b"up\n" == host.stdout.readline()
        engine = connect_local(folder)
        bench = Bench(engine, folder, host.pid)
        assert [] == await engine.connect(bench.events.append)
        yield bench
        await engine.close()
        assert host.stdin is not None
        host.stdin.close()
        assert 0 == await asyncio.to_thread(host.wait, 10)


def connect_local(folder: Path) -> LocalEngine:
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(folder / "controller.sock"))
    ledger = Ledger(cpus=2, gpu_ids=(0, 1), custom={"press": 1})
    return LocalEngine(link, ledger, on_lost=lambda: None)


Check = Callable[[Bench], Awaitable[None]]


def on(*names: str) -> Callable[[Check], Callable[[str, Path], None]]:
    """Run a coroutine once on each of these engines."""

    def decorate(check: Check) -> Callable[[str, Path], None]:
        @pytest.mark.parametrize("engine_name", names)
        def test(engine_name: str, short_path: Path) -> None:
            async def body() -> None:
                async with open_bench(engine_name, short_path) as bench:
                    await check(bench)

            asyncio.run(body())

        # functools.wraps would show pytest the coroutine's own arguments.
        functools.update_wrapper(test, check, assigned=("__name__", "__doc__", "__module__"), updated=())
        del test.__wrapped__  # type: ignore[attr-defined]
        return test

    return decorate


@on(*ENGINES)
async def test_start_tells_the_process_and_stop_tells_an_orderly_end(bench: Bench) -> None:
    started = await bench.start("a")

    bench.engine.stop("app#Main#a", force=False)
    ended = await bench.event(ReplicaExited, "a")

    assert started.pid > 0
    assert (0, None) == (ended.exit_code, ended.signal)
    assert started.pid == ended.pid


@on(*ENGINES)
async def test_replica_that_returns_has_ended_well(bench: Bench) -> None:
    bench.engine.start(bench.launch("a", "return"))

    assert 0 == (await bench.event(ReplicaExited, "a")).exit_code


@on(*ENGINES)
async def test_replica_that_raises_has_failed(bench: Bench) -> None:
    bench.engine.start(bench.launch("a", "raise"))

    ended = await bench.event(ReplicaExited, "a")

    assert 1 == ended.exit_code
    story = ended.reason
    if bench.engine.capabilities.environment:
        story += (bench.folder / "a.log").read_text()
    assert "the replica is broken" in story


@on(*ENGINES)
async def test_several_replicas_end_each_for_itself(bench: Bench) -> None:
    for tag in ("a", "b", "c"):
        await bench.start(tag)

    bench.engine.stop("app#Main#b", force=False)
    await bench.event(ReplicaExited, "b")

    assert [0, 1, 0] == [bench.exits(tag) for tag in ("a", "b", "c")]
    for tag in ("a", "c"):
        bench.engine.stop(f"app#Main#{tag}", force=False)
        await bench.event(ReplicaExited, tag)


@on(*ENGINES)
async def test_stopping_twice_or_the_unknown_does_no_harm(bench: Bench) -> None:
    bench.engine.stop("app#Main#nobody", force=False)
    bench.engine.stop("app#Main#nobody", force=True)
    bench.engine.mark("app#Main#nobody", "READY")
    await bench.start("a")

    bench.engine.stop("app#Main#a", force=False)
    bench.engine.stop("app#Main#a", force=False)
    await bench.event(ReplicaExited, "a")
    bench.engine.stop("app#Main#a", force=True)
    await bench.start("b")
    bench.engine.stop("app#Main#b", force=False)
    await bench.event(ReplicaExited, "b")

    assert 1 == bench.exits("a")


@on(*ENGINES)
async def test_shutdown_is_told_back(bench: Bench) -> None:
    bench.engine.begin_shutdown(0.25)

    assert 0.25 == (await bench.event(ShutdownBegun)).grace_s


@on("inprocess")
async def test_reconnecting_lists_threads_with_their_marks(bench: Bench) -> None:
    await bench.start("a")
    bench.engine.mark("app#Main#a", "READY")

    running = await bench.engine.connect(bench.events.append)

    assert [("app#Main#a", "READY")] == [(r.launch.replica_id, r.mark) for r in running]


@on("local", "local-twins")
async def test_new_controller_finds_processes_with_marks_and_holdings(bench: Bench) -> None:
    options = DeploymentOptions(resources=ResourceRequest(num_gpus=0.5))
    await bench.start("a", options=options)
    bench.engine.mark("app#Main#a", "READY")

    await bench.engine.close()
    second = connect_local(bench.folder)
    running = await second.connect(bench.events.append)

    assert [("app#Main#a", "READY", (0,))] == [
        (r.launch.replica_id, r.mark, r.launch.gpu_ids) for r in running
    ]
    assert b"" == running[0].launch.definition
    assert (Holding("app#Main#a", 0.5, {}),) == second.resources().holdings
    await second.close()


@on("local", "local-twins")
async def test_force_ends_a_replica_that_does_not_listen(bench: Bench) -> None:
    await bench.start("a", "stubborn")
    bench.engine.stop("app#Main#a", force=False)

    bench.engine.stop("app#Main#a", force=True)
    ended = await bench.event(ReplicaExited, "a")

    assert (None, signal.SIGKILL) == (ended.exit_code, ended.signal)
    assert "SIGKILL" in ended.reason


@on("local", "local-twins")
async def test_killed_replica_is_told_at_once_and_its_socket_removed(bench: Bench) -> None:
    started = await bench.start("a")

    os.kill(started.pid, signal.SIGKILL)
    await bench.event(ReplicaExited, "a")

    assert not (bench.folder / "a.sock").exists()


@on("local", "local-twins")
async def test_the_end_of_a_replica_tells_its_peak_of_memory_and_a_kill_is_none_for_memory(
    bench: Bench,
) -> None:
    started = await bench.start("a")

    os.kill(started.pid, signal.SIGKILL)
    ended = await bench.event(ReplicaExited, "a")

    # An interpreter with the image's modules; far from nothing and from a gigabyte.
    assert 5e6 < ended.peak_bytes < 1e9
    assert not ended.out_of_memory


@pytest.mark.linux
@on("local", "local-twins")
async def test_vitals_tell_a_stopped_process_until_it_goes_on_or_ends(bench: Bench) -> None:
    started = await bench.start("a")
    assert bench.engine.vitals("app#Main#nobody") is None

    def is_stopped() -> bool:
        vitals = bench.engine.vitals("app#Main#a")
        return vitals is not None and vitals.stopped

    assert not is_stopped()
    os.kill(started.pid, signal.SIGSTOP)
    await wait_until_async(is_stopped, "the stop")
    os.kill(started.pid, signal.SIGCONT)
    await wait_until_async(lambda: not is_stopped(), "the process to go on")

    bench.engine.stop("app#Main#a", force=True)
    await bench.event(ReplicaExited, "a")
    assert bench.engine.vitals("app#Main#a") is None


@on("inprocess")
async def test_vitals_of_a_thread_are_unknown(bench: Bench) -> None:
    await bench.start("a")

    assert bench.engine.vitals("app#Main#a") is None


@on("local")
async def test_shortage_is_told_with_the_arithmetic_and_ends_with_the_holder(bench: Bench) -> None:
    options = DeploymentOptions(resources=ResourceRequest(num_gpus=2, resources={"press": 1}))
    await bench.start("a", options=options)

    bench.engine.start(bench.launch("b", options=options))
    unplaced = await bench.event(ReplicaUnplaceable, "b")
    bench.engine.stop("app#Main#a", force=False)
    await bench.event(ReplicaExited, "a")
    again = await bench.start("b", options=options)

    assert "wants 1 of 'press', the machine has 1: app#Main#a holds 1" in unplaced.reason
    assert (0, 1) == again.gpu_ids


@on("local", "local-twins")
async def test_environment_is_the_replicas_own(bench: Bench) -> None:
    facts = bench.folder / "facts"
    options = DeploymentOptions(env_vars={"FLAVOUR": "mint"}, resources=ResourceRequest(num_gpus=1))
    code = CodeLocation(working_dir=str(bench.folder))

    await bench.start("a", f"facts {facts}", options=options, code=code)

    found = json.loads(facts.read_text())
    assert ("mint", "0", "app#Main#a") == tuple(
        found[name] for name in ("FLAVOUR", "CUDA_VISIBLE_DEVICES", "TRYGON_REPLICA_ID")
    )
    assert str(bench.folder) == found["cwd"]


@on("local", "local-twins")
async def test_variable_that_acts_at_exec_gets_a_fresh_interpreter(bench: Bench) -> None:
    facts = bench.folder / "facts"
    options = DeploymentOptions(env_vars={"PYTHONHASHSEED": "3"})

    started = await bench.start("a", f"facts {facts}", options=options)

    found = json.loads(facts.read_text())
    assert "3" == found["PYTHONHASHSEED"]
    assert "trygon.processes.replica_exec" in found["argv"]
    assert bench.host_pid == psutil.Process(started.pid).ppid()


@on("local", "local-twins")
async def test_replicas_end_with_their_supervisor(bench: Bench) -> None:
    started = [await bench.start("a"), await bench.start("b", "stubborn")]
    fresh = DeploymentOptions(env_vars={"PYTHONHASHSEED": "3"})
    started.append(await bench.start("c", options=fresh))
    processes = [psutil.Process(event.pid) for event in started]
    host = psutil.Process(bench.host_pid)

    bench.engine.end()

    gone, left = await asyncio.to_thread(psutil.wait_procs, processes, timeout=3)
    assert (3, 0) == (len(gone), len(left))
    await asyncio.to_thread(psutil.wait_procs, [host], timeout=3)
