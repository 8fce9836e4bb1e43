"""The watchdog of a replica and the controller's watch: a real thread, loop and socket on each side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.control.conftest import Start, alive, app, deployment, pids, run
from tests.waiting import wait_until, wait_until_async
from trygon.control.events import ReplicaAdopted, ReplicaObserved
from trygon.control.fold import fold
from trygon.control.reconcile.replica import ReplicaPhase, TroubleKind
from trygon.control.state import ControllerState
from trygon.control.watch import HealthWatch
from trygon.engine.base import Vitals
from trygon.engine.inprocess import InProcessEngine
from trygon.processes.watchdog import Watchdog, place_of
from trygon.spec.application import CodeLocation, DeploymentOptions
from trygon.spec.control import FromPeer, Hello, ReplicaAlive
from trygon.spec.launch import ReplicaLaunch
from trygon.spec.wire import MessageReader

NAME = "app#Main#tag"


# ---- the watchdog


class Controller:
    """The other end of a watchdog's connection, read by the thread that asks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(10)
        self._link: socket.socket | None = None
        self._reader: MessageReader[FromPeer] = MessageReader(FromPeer)

    def accept(self) -> None:
        """Take the next connection."""
        self.drop()
        self._link, _ = self._listener.accept()
        self._link.settimeout(10)
        self._reader = MessageReader(FromPeer)

    def read(self) -> list[FromPeer]:
        """Return the next messages, blocking the caller."""
        assert self._link is not None
        return list(self._reader.feed(self._link.recv(65536)))

    def drop(self) -> None:
        """End the connection, as a controller that dies does."""
        if self._link is not None:
            self._link.close()

    def close(self) -> None:
        """End everything."""
        self.drop()
        self._listener.close()


@pytest.fixture
def controller(short_path: Path) -> Iterator[Controller]:
    """Give the other end of a watchdog's connection."""
    controller = Controller(short_path / "c.sock")
    yield controller
    controller.close()


@contextlib.contextmanager
def watching(controller: Controller) -> Iterator[Watchdog]:
    watchdog = Watchdog(str(controller.path), NAME, beat_s=0.02)
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.stop()
        watchdog.join(5.0)


def test_a_watchdog_says_who_it_is_and_where_the_loop_is_blocked(controller: Controller) -> None:
    async def block() -> list[FromPeer]:
        with watching(controller):
            controller.accept()
            found: list[FromPeer] = []
            # Reading here is what blocks the loop.
            while not any(isinstance(one, ReplicaAlive) and one.blocked_s for one in found):
                found += controller.read()
            return found

    said = asyncio.run(block())

    assert Hello(role="watchdog", peer_id=NAME, pid=os.getpid()) == said[0]
    assert ReplicaAlive(replica_id=NAME) == said[1]
    last = said[-1]
    assert isinstance(last, ReplicaAlive)
    assert last.blocked_s >= 1.0
    assert "test_watch.py:" in last.where


def test_a_watchdog_comes_back_to_the_next_controller(controller: Controller) -> None:
    async def restart() -> tuple[list[FromPeer], list[FromPeer]]:
        with watching(controller):
            await asyncio.to_thread(controller.accept)
            before = await asyncio.to_thread(controller.read)
            await asyncio.to_thread(controller.accept)
            return before, await asyncio.to_thread(controller.read)

    before, after = asyncio.run(restart())

    assert isinstance(before[0], Hello)
    assert before[0] == after[0]


def test_a_watchdog_ends_with_its_loop_and_without_a_controller(short_path: Path) -> None:
    async def leave() -> Watchdog:
        watchdog = Watchdog(str(short_path / "nobody.sock"), NAME, beat_s=0.02)
        watchdog.start()
        return watchdog

    watchdog = asyncio.run(leave())

    assert watchdog.join(5.0)


def test_the_place_is_the_users_even_when_a_library_is_entered() -> None:
    import json

    class Seen:
        place = ""

    def look(_: object) -> str:
        Seen.place = place_of(sys._getframe())
        return ""

    json.dumps({"a": object()}, default=look)

    assert Seen.place.startswith("tests/integration/control/test_watch.py:")


# ---- the controller's watch


class Dial:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Machine(InProcessEngine):
    """Processes are as the test says."""

    found: Vitals | None = None

    def __init__(self) -> None:
        super().__init__(lambda _launch, _stop: None)

    def vitals(self, replica_id: str) -> Vitals | None:
        return self.found


class Bench:
    """A watch over one ready replica."""

    def __init__(self) -> None:
        self.clock, self.machine, self.state = Dial(), Machine(), ControllerState()
        self.told: list[ReplicaObserved] = []
        launch = ReplicaLaunch(
            replica_id=NAME,
            app_name="app",
            deployment="Main",
            revision=1,
            is_ingress=True,
            route_prefix="/",
            definition=b"",
            options=DeploymentOptions(),
            code=CodeLocation(),
            address="",
            controller_address="",
            log_path="",
        )
        fold(self.state, ReplicaAdopted(launch, 7, ReplicaPhase.READY), self.clock.now)
        self.watch = HealthWatch(self.state, self.machine, self.clock, self.take, look_s=0.01)

    def take(self, event: ReplicaObserved) -> None:
        self.told.append(event)
        fold(self.state, event, self.clock.now)

    def beat(self, blocked_s: float = 0.0, where: str = "") -> None:
        self.watch.heard(ReplicaAlive(replica_id=NAME, blocked_s=blocked_s, where=where))

    @property
    def kind(self) -> TroubleKind | None:
        trouble = self.state.applications["app"].replicas[NAME].trouble
        return trouble.kind if trouble is not None else None

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in steps that the watch sees one by one."""
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            seen = self.watch.num_looks
            await wait_until_async(lambda seen=seen: self.watch.num_looks > seen + 1, "two looks")


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.watch.start()
    try:
        yield bench
    finally:
        bench.watch.close()


async def _beats() -> None:
    async with watched() as bench:
        bench.beat()
        assert [] == bench.told
        bench.beat(blocked_s=3.0, where="app.py:30")
        assert TroubleKind.BLOCKED == bench.kind
        bench.beat()
        assert bench.kind is None
        bench.watch.heard(ReplicaAlive(replica_id="app#Main#gone", blocked_s=3.0))
        assert 2 == len(bench.told)


def test_beats_are_told_when_they_mean_something() -> None:
    asyncio.run(_beats())


async def _silence() -> None:
    async with watched() as bench:
        bench.machine.found = Vitals(stopped=False, running=False, cpu_s=1.0)
        bench.beat()
        await bench.pass_time(5.0)
        assert TroubleKind.FROZEN == bench.kind
        bench.machine.found = Vitals(stopped=False, running=False, cpu_s=2.0)
        await bench.pass_time(1.0)
        assert TroubleKind.BLOCKED == bench.kind
        bench.machine.found = Vitals(stopped=True, running=False, cpu_s=2.0)
        await bench.pass_time(1.0)
        assert TroubleKind.FROZEN == bench.kind
        bench.beat()
        assert bench.kind is None


def test_a_silent_replica_is_looked_at_until_it_speaks() -> None:
    asyncio.run(_silence())


async def _never_heard() -> None:
    async with watched() as bench:
        await bench.pass_time(5.0)
        assert bench.kind is None
        bench.machine.found = Vitals(stopped=True, running=False, cpu_s=2.0)
        await bench.pass_time(1.0)
        assert TroubleKind.FROZEN == bench.kind


def test_a_stopped_replica_is_found_by_a_controller_that_never_heard_it() -> None:
    asyncio.run(_never_heard())


async def _late() -> None:
    async with watched() as bench:
        bench.machine.found = Vitals(stopped=False, running=False, cpu_s=1.0)
        bench.beat()
        bench.clock.now += 3600.0
        seen = bench.watch.num_looks
        await wait_until_async(lambda: bench.watch.num_looks > seen + 1, "two looks")
        assert bench.kind is None


def test_a_controller_that_stood_still_blames_nobody() -> None:
    asyncio.run(_late())


# ---- processes that are stopped


@pytest.mark.linux
@pytest.mark.parametrize("kind", ["controller", "ingress"])
def test_a_stopped_system_process_is_replaced(start: Start, kind: str) -> None:
    instance = start()
    run(instance)
    (stopped,) = pids(instance, kind)

    os.kill(stopped, signal.SIGSTOP)

    wait_until(lambda: not alive({stopped}), "the stopped process to be killed", timeout_s=10)
    wait_until(lambda: len(pids(instance, kind)) == 1, "its successor")
    wait_until(lambda: instance.status().proxies["0"] == "HEALTHY", "the ingress")


@pytest.mark.linux
def test_a_shutdown_passes_over_a_controller_that_does_not_answer(start: Start) -> None:
    instance = start()
    run(instance, app(deployment("Main", {"stubborn": True}, graceful_shutdown_timeout_s=60.0)))
    (controller,) = pids(instance, "controller")
    (replica,) = pids(instance, "replica")
    os.kill(controller, signal.SIGSTOP)

    began = time.monotonic()
    instance.shutdown(timeout_s=1.0)

    assert time.monotonic() - began < 8.0
    assert set() == alive({controller, replica, instance.record.supervisor_pid})


@pytest.mark.linux
def test_a_stopped_replica_is_replaced_by_a_controller_that_has_only_just_started(start: Start) -> None:
    instance = start()
    run(instance)
    (stopped,) = pids(instance, "replica")
    os.kill(stopped, signal.SIGSTOP)

    for controller in pids(instance, "controller"):
        os.kill(controller, signal.SIGKILL)

    wait_until(lambda: not alive({stopped}), "the stopped replica to be killed", timeout_s=12)
    wait_until(lambda: len(pids(instance, "replica")) == 1, "its successor")
    wait_until(lambda: instance.status().applications["default"].status == "RUNNING", "the application")
