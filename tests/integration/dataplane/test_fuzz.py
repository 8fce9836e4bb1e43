"""Random calls while replicas are drained and replaced: none may hang, and at rest nothing may be held."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.integration.dataplane.harness import Caller, ServedReplica, num_memory_files, table
from tests.waiting import wait_until_async
from trygon.dataplane.handle import DeploymentHandle
from trygon.errors import ReplicaUnavailableError, RequestCancelledError

pytestmark = pytest.mark.linux

MAX_ONGOING = 3
NUM_REPLICAS = 3
NUM_CALLERS = 4
#: Workers make one call after another; so many that there is always a queue.
WORKERS_PER_CALLER = 30
CALLS_PER_WORKER = 7
NUM_CALLS = NUM_CALLERS * WORKERS_PER_CALLER * CALLS_PER_WORKER
NUM_REPLACEMENTS = 3

#: A run takes about two seconds; a call that is later than this hangs.
DEADLINE_S = 25.0
DRAIN_S = 15.0

KINDS = ("unary", "blocking", "stream", "blocking stream", "large", "large stream", "broadcast", "selection")
LARGE_BYTES = 1 << 20
LARGE_ITEMS = 6


class Served:
    """User code of every kind, which counts how many of its requests run at once."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    async def __call__(self, seconds: float) -> float:
        with self._counted():
            await asyncio.sleep(seconds)
            return seconds

    def blocking(self, seconds: float) -> float:
        with self._counted():
            time.sleep(seconds)
            return seconds

    async def stream(self, length: int) -> AsyncIterator[int]:
        with self._counted():
            for item in range(length):
                await asyncio.sleep(0)
                yield item

    def blocking_stream(self, length: int) -> Iterator[int]:
        with self._counted():
            yield from range(length)

    async def large_stream(self, length: int) -> AsyncIterator[bytes]:
        with self._counted():
            for item in range(min(length, LARGE_ITEMS)):
                yield bytes([item]) * LARGE_BYTES

    async def echo(self, payload: bytes) -> bytes:
        with self._counted():
            return payload


@dataclass(frozen=True)
class Step:
    """One call, drawn before the run so that a seed always gives the same calls."""

    kind: str
    seconds: float
    length: int
    size: int
    #: Items to read of a stream before it is left; None reads all.
    reads: int | None
    #: Seconds until the response is cancelled.
    cancelled_after_s: float | None
    #: Seconds until the task that makes the call gives up.
    gives_up_after_s: float | None
    #: Whether a selection is used, or a stream that is left is cancelled and not just dropped.
    flag: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Step:
        return cls(
            kind=rng.choice(KINDS),
            seconds=rng.random() * 0.015,
            length=rng.choice((0, 5, 400)),
            size=rng.choice((10, LARGE_BYTES)),
            reads=rng.choice((3, None)),
            cancelled_after_s=rng.random() * 0.1 if rng.random() < 0.3 else None,
            gives_up_after_s=rng.random() * 0.1 if rng.random() < 0.1 else None,
            flag=rng.random() < 0.7,
        )

    async def run(self, handle: DeploymentHandle) -> None:
        """Make the call and check its result.

        Raises:
            RequestCancelledError: It was cancelled, as drawn.
            ReplicaUnavailableError: The replica that was chosen left before it took the request.
            TimeoutError: The caller gave up, as drawn.
        """
        async with asyncio.timeout(self.gives_up_after_s):
            match self.kind:
                case "stream" | "blocking stream" | "large stream":
                    await self._read(handle.options(method_name=self.kind.replace(" ", "_"), stream=True))
                case "broadcast":
                    await self._broadcast(handle)
                case "selection":
                    async with handle.choose_replica() as selection:
                        if self.flag:
                            assert 0.001 == await handle.dispatch(selection, 0.001)
                case "large":
                    payload = b"x" * self.size
                    assert payload == await self._cancelling(handle.echo.remote(payload))
                case "blocking":
                    assert self.seconds == await self._cancelling(handle.blocking.remote(self.seconds))
                case _:
                    assert self.seconds == await self._cancelling(handle.remote(self.seconds))

    def _cancelling(self, response: Any) -> Any:
        if self.cancelled_after_s is not None:
            asyncio.get_running_loop().call_later(self.cancelled_after_s, response.cancel)
        return response

    async def _read(self, handle: DeploymentHandle) -> None:
        items = []
        response = handle.remote(self.length)
        async for item in response:
            items.append(item[0] if isinstance(item, bytes) else item)
            if len(items) == 1 and self.cancelled_after_s is not None:
                # Soon, so that items are on their way when the call is over.
                asyncio.get_running_loop().call_later(self.cancelled_after_s / 20, response.cancel)
            if len(items) == self.reads:
                break
        if self.flag:
            response.cancel()
        length = min(self.length, LARGE_ITEMS) if self.kind == "large stream" else self.length
        assert list(range(length))[: self.reads] == items

    async def _broadcast(self, handle: DeploymentHandle) -> None:
        results = await handle.broadcast("__call__", 0.001).results_async(return_exceptions=True)
        for result in results:
            assert result == 0.001 or isinstance(result, ReplicaUnavailableError), repr(result)

    @property
    def may_end_by(self) -> tuple[type[Exception], ...]:
        """The errors that are a right end of this call."""
        ends: list[type[Exception]] = []
        if self.cancelled_after_s is not None:
            ends.append(RequestCancelledError)
        if self.gives_up_after_s is not None:
            ends.append(TimeoutError)
        if self.kind == "selection":
            ends.append(ReplicaUnavailableError)
        return tuple(ends)


class Progress:
    """How many calls have ended: the clock that changes go by, so that load and change always meet."""

    def __init__(self) -> None:
        self.count = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def advance(self) -> None:
        self.count += 1
        for waiter in [entry for entry in self._waiters if entry[0] <= self.count]:
            self._waiters.remove(waiter)
            waiter[1].set_result(None)

    async def wait_reached(self, count: int) -> None:
        if self.count < min(count, NUM_CALLS):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((min(count, NUM_CALLS), waiter))
            await waiter


class Fuzz:
    """One run: the replicas, the callers, and what went wrong."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.progress = Progress()
        self.wrongs: list[str] = []
        self.version = 1
        self.replicas: list[ServedReplica] = []
        self.all_replicas: list[ServedReplica] = []
        self.callers: list[Caller] = []
        self.drains: dict[str, asyncio.Task[bool]] = {}
        #: Each worker's call at this moment, for the report of one that hangs.
        self.current: dict[asyncio.Task[None], Step] = {}

    async def start(self) -> None:
        for _ in range(NUM_REPLICAS):
            await self.add_replica()
        first = table(self.version, self.replicas, MAX_ONGOING)
        self.callers = [Caller(f"caller {number}", first) for number in range(NUM_CALLERS)]

    async def add_replica(self) -> None:
        served = await ServedReplica.start(Served, len(self.all_replicas), self.folder, MAX_ONGOING)
        self.replicas.append(served)
        self.all_replicas.append(served)

    async def close(self) -> None:
        for caller in self.callers:
            await caller.router.close()
        for served in self.all_replicas:
            await served.close()

    # ---- load and change

    async def work(self, handle: DeploymentHandle, steps: list[Step]) -> None:
        me = asyncio.current_task()
        assert me is not None
        for step in steps:
            self.current[me] = step
            try:
                await step.run(handle)
            except step.may_end_by:
                pass
            except Exception as error:
                self.wrongs.append(f"{step} ended by {error!r}")
            self.progress.advance()
        del self.current[me]

    async def replace_replicas(self) -> None:
        """Drain a replica for a new one; callers hear of it late, and not all at once."""
        for change in range(1, NUM_REPLACEMENTS + 1):
            await self.progress.wait_reached(change * NUM_CALLS // (NUM_REPLACEMENTS + 1))
            await self.add_replica()
            old = self.replicas.pop(self.rng.randrange(NUM_REPLICAS))
            self.drains[old.target.replica_id] = asyncio.create_task(old.replica.drain(DRAIN_S))
            self.version += 1
            news = table(self.version, self.replicas, MAX_ONGOING)
            for caller in self.rng.sample(self.callers, NUM_CALLERS):
                await self.progress.wait_reached(self.progress.count + self.rng.randrange(12))
                caller.router.apply(news)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self.wrongs.append(f"the loop was told {context}"))
        workers = [
            asyncio.create_task(
                self.work(caller.handle, [Step.draw(self.rng) for _ in range(CALLS_PER_WORKER)])
            )
            for caller in self.callers
            for _ in range(WORKERS_PER_CALLER)
        ]
        changes = asyncio.create_task(self.replace_replicas())
        _, hanging = await asyncio.wait([*workers, changes], timeout=DEADLINE_S)
        hangs = [str(self.current.get(task, "the changes")) for task in hanging]
        states = self.leftovers() if hanging else []
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

        assert [] == hangs, f"hung for {DEADLINE_S:g} s, with {states}"
        changes.result()
        assert [] == self.wrongs

    # ---- what must be true at rest

    def leftovers(self) -> list[str]:
        found = [line for caller in self.callers for line in caller.leftovers()]
        return found + [line for served in self.all_replicas for line in served.leftovers()]

    async def check_rest(self, num_memory_files_before: int) -> None:
        drained = dict(zip(self.drains, await asyncio.gather(*self.drains.values()), strict=True))
        gc.collect()  # streams that were dropped in a cycle
        with contextlib.suppress(AssertionError):  # told below, with what is left
            await wait_until_async(
                lambda: not self.leftovers() and num_memory_files() == num_memory_files_before, "rest"
            )

        assert [] == self.leftovers()
        assert num_memory_files_before == num_memory_files()
        assert NUM_REPLACEMENTS == len(drained)
        assert all(drained.values()), f"drained within {DRAIN_S:g} s: {drained}"
        most = {served.target.replica_id: served.user.instance.most for served in self.all_replicas}
        assert max(most.values()) == MAX_ONGOING, f"most requests at once: {most}"

    async def check_everything_is_usable(self) -> None:
        """No link may be left without the right to send: each caller reaches each replica."""
        for caller in self.callers:
            sent = caller.handle.broadcast("__call__", 0.0)

            assert [0.0] * NUM_REPLICAS == await sent.results_async(timeout_s=5), caller.name


@pytest.fixture
def restored_random() -> Iterator[None]:
    """Give the module's generator, which balancing draws from, its state back."""
    state = random.getstate()
    yield
    random.setstate(state)


@pytest.mark.usefixtures("restored_random")
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_random_calls_during_replacements_leave_nothing(seed: int, short_path: Path) -> None:
    async def main() -> None:
        before = num_memory_files()
        fuzz = Fuzz(seed, short_path)
        try:
            await fuzz.start()
            await fuzz.run()
            await fuzz.check_rest(before)
            await fuzz.check_everything_is_usable()
        finally:
            await fuzz.close()
        assert [] == fuzz.wrongs

    random.seed(seed)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
