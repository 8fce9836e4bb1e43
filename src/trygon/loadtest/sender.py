"""Sends the requests of a plan from one event loop, in an open or a closed loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import ssl
from collections import deque
from collections.abc import Callable, Iterator

from trygon.clock import Clock
from trygon.loadtest.connection import Connection
from trygon.loadtest.plan import LoadPlan, TlsFiles
from trygon.loadtest.recorder import Recorder
from trygon.loadtest.result import Report
from trygon.loadtest.schedule import arrivals

__all__ = ["Sender", "make_context"]

#: A request that leaves so much after it was due is late, if a connection was there for it.
_LATE_S = 0.005
_REPORT_S = 0.25
#: Timeouts are noticed so often: one timer for all, since each request's own would cost as much as the request.
_SWEEP_S = 0.05
#: A refused connection in a closed loop is tried again after it, so that the sender does not spin.
_RETRY_S = 0.05


class Sender:
    """One sender.

    Args:
        plan: What to send.
        report: Called now and then with what was seen, and at the end once with `is_final`.
        clock: Tells the time; the loop's own.
    """

    def __init__(self, plan: LoadPlan, report: Callable[[Report], None], clock: Clock) -> None:
        self._plan = plan
        self._report = report
        self._now = clock.monotonic
        self._chance = random.Random(plan.seed * 1009 + plan.number)
        self._requests = itertools.cycle(plan.requests)
        self._tls = None if plan.tls is None else make_context(plan.tls)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._num_connecting = 0
        #: Due requests of an open loop without a connection, oldest first.
        self._waiting: deque[float] = deque()
        #: In the order they left, with the time they were due; all have the same timeout.
        self._under_way: deque[tuple[float, Connection]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._schedule: Iterator[float] = iter(())
        self._num_sent = 0
        self._begun = self._ends = self._counted = 0.0
        #: Processor time that was used before anything was sent.
        self._spent_before = 0.0
        self._over = asyncio.Event()
        self._is_stopping = False
        self._recorder = Recorder(0.0)
        self._is_open_loop = bool(plan.phases)

    async def run(self) -> None:
        """Send until the plan is done or `stop` is called; return when each request has ended or timed out."""
        plan = self._plan
        self._begun = self._now()
        self._spent_before = _processor_time()
        self._counted = self._begun + plan.warmup_s
        self._ends = float("inf") if plan.duration_s is None else self._counted + plan.duration_s
        self._recorder = Recorder(self._counted)
        ticks = asyncio.create_task(self._tick())
        if self._is_open_loop:
            await self._run_open()
        else:
            for _ in range(plan.connections):
                self._next()
        await self._over.wait()
        ended = self._now()
        self._is_stopping = True
        # Those that left in time are waited for, and counted.
        while (
            self._under_way or self._waiting or self._num_connecting
        ) and self._now() < ended + plan.timeout_s:
            await asyncio.sleep(0.01)
            self._forget_ended()
        ticks.cancel()
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._open):
            connection.drop()
        self._send_report(min(ended, self._ends), is_final=True)

    def stop(self) -> None:
        """Send no more."""
        self._over.set()

    # ---- open loop

    async def _run_open(self) -> None:
        plan = self._plan
        chance = self._chance.random if plan.is_poisson else None
        self._schedule = arrivals(plan.phases, first=plan.number, step=plan.senders, chance=chance)
        for at in self._schedule:
            due = self._begun + at
            while (left := due - self._now()) > 0:
                if await self._is_over_within(left):
                    return
            if due >= self._ends or self._over.is_set():
                break
            self._send_due(due)
            if self._is_complete():
                break
        self._over.set()

    async def _is_over_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return False
        return True

    def _send_due(self, due: float) -> None:
        self._num_sent += due >= self._counted
        is_fresh = self._chance.random() < self._plan.new_connections
        if self._idle and not is_fresh:
            self._send_on(self._idle.pop(), due)
            return
        self._waiting.append(due)
        self._connect_if_needed()

    def _connect_if_needed(self) -> None:
        room = self._plan.connections - len(self._open) - self._num_connecting
        if room > 0 and self._num_connecting < len(self._waiting):
            self._connect()

    def _send_on(self, connection: Connection, due: float, *, waited: bool = False) -> None:
        now = self._now()
        if self._is_open_loop:
            self._recorder.sent(due, is_late=not waited and now - due > _LATE_S)
        self._under_way.append((due, connection))
        connection.send(next(self._requests), due)

    # ---- closed loop

    def _next(self, connection: Connection | None = None) -> None:
        """Let one of the closed loop's clients send its next request."""
        now = self._now()
        if self._over.is_set():
            return
        if now >= self._ends or self._is_complete():
            self._over.set()
            return
        is_fresh = self._plan.new_connections and self._chance.random() < self._plan.new_connections
        if connection is not None and is_fresh:
            connection.drop()
            connection = None
        self._num_sent += now >= self._counted
        if connection is not None:
            self._send_on(connection, now)
        else:
            self._waiting.append(now)
            self._connect()

    def _is_complete(self) -> bool:
        return self._plan.max_requests is not None and self._num_sent >= self._plan.max_requests

    # ---- connections

    def _connect(self) -> None:
        self._num_connecting += 1
        task = asyncio.get_running_loop().create_task(self._open_connection())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open_connection(self) -> None:
        plan = self._plan
        name = plan.target.host if self._tls is not None else None
        try:
            async with asyncio.timeout(plan.timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self, is_head=plan.is_head),
                    plan.address,
                    plan.target.port,
                    ssl=self._tls,
                    server_hostname=name,
                )
        except (OSError, TimeoutError) as error:
            self._num_connecting -= 1
            await self._on_unconnected(error)
            return
        self._num_connecting -= 1
        self._open.add(connection)
        self._recorder.report.connections += 1
        self._take(connection)

    async def _on_unconnected(self, error: OSError) -> None:
        if self._waiting:
            self._recorder.failed(self._waiting.popleft(), self._now(), _kind_of(error), _reason_of(error))
        if self._is_open_loop:
            self._connect_if_needed()
            return
        await asyncio.sleep(_RETRY_S)
        self._next()

    def _take(self, connection: Connection) -> None:
        """Use a connection that is free: for what waits, or later."""
        if self._waiting:
            self._send_on(connection, self._waiting.popleft(), waited=True)
        elif self._is_open_loop:
            self._idle.append(connection)
        else:
            self._next(connection)

    # ---- what connections say

    def on_answer(self, connection: Connection, status: int, body: bytes) -> None:
        self._recorder.answered(connection.due, self._now(), status, body)
        if not connection.is_kept:
            connection.drop()
            if not self._is_open_loop:
                self._next()
        else:
            self._take(connection)

    def on_failure(self, connection: Connection, kind: str) -> None:
        self._recorder.failed(connection.due, self._now(), kind)
        if not self._is_open_loop:
            self._next()

    def on_closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._recorder.report.received_bytes += connection.received
        connection.received = 0
        if connection in self._idle:
            self._idle.remove(connection)
        if self._is_open_loop and not self._is_stopping:
            self._connect_if_needed()

    # ---- now and then

    async def _tick(self) -> None:
        """Notice timeouts and the end, and report."""
        reported = self._now()
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = self._now()
            self._give_up(now)
            if now >= self._ends and not self._is_open_loop:
                self._over.set()
            if now - reported >= _REPORT_S:
                reported = now
                self._send_report(min(now, self._ends), is_final=False)

    def _forget_ended(self) -> None:
        under_way = self._under_way
        while under_way and not (under_way[0][1].is_busy and under_way[0][1].due == under_way[0][0]):
            under_way.popleft()

    def _give_up(self, now: float) -> None:
        latest = now - self._plan.timeout_s
        self._forget_ended()
        while self._under_way and self._under_way[0][0] < latest:
            due, connection = self._under_way.popleft()
            if connection.is_busy and connection.due == due:
                connection.drop()
                self._recorder.failed(due, now, "timeout", f"no answer within {self._plan.timeout_s:g} s")
                if not self._is_open_loop:
                    self._next()
            self._forget_ended()
        while self._waiting and self._waiting[0] < latest and self._is_open_loop:
            self._recorder.failed(
                self._waiting.popleft(),
                now,
                "no free connection",
                "all of --connections were busy until the timeout",
            )

    def _send_report(self, now: float, *, is_final: bool) -> None:
        report = self._recorder.snapshot(now - self._counted)
        report.in_flight = sum(connection.is_busy for connection in self._open)
        report.busy_share = (_processor_time() - self._spent_before) / max(1e-9, self._now() - self._begun)
        report.received_bytes += sum(connection.received for connection in self._open)
        for connection in self._open:
            connection.received = 0
        report.is_final = is_final
        self._report(report)


def _processor_time() -> float:
    times = os.times()
    return times.user + times.system


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """Return how to speak TLS; OSError or ssl.SSLError when a file cannot be used."""
    context = ssl.create_default_context(cafile=files.ca_cert)
    if not files.is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


def _kind_of(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "connect timeout"
    if isinstance(error, ssl.SSLError):
        return "TLS failure"
    return "cannot connect"


def _reason_of(error: OSError) -> str:
    return str(error) or "the connection was not accepted in time"
