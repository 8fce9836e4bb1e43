"""1,000 clients that leave in the middle of a request through three deployments, and 1,000 with a deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from bench.apps.serve_cancel import app
from bench.instance import Instance, running_instance
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.stats import percentile
from bench.table import Check, Report
from trygon import serve
from trygon.serve.handle import DeploymentHandle

__all__ = ["run_cancel"]

_CLIENTS = 1000
_THREADS = 20
_DEADLINE_S = 0.1
_SETTLE_S = 15.0
_COLUMNS = ("clients", "left", "cancelled at the bottom", "p50 ms", "p99 ms", "last ms")


class _Clients:
    """Connections with a request each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._readers: dict[str, asyncio.StreamReader] = {}
        #: When each left, on the machine's monotonic clock.
        self.left: dict[str, float] = {}

    async def ask(self, name: str, query: str, *lines: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = "".join(f"{line}\r\n" for line in ("Host: a", *lines))
        writer.write(f"GET /?name={name}&{query} HTTP/1.1\r\n{head}\r\n".encode())
        self._writers[name], self._readers[name] = writer, reader

    async def status(self, name: str) -> int:
        line = await self._readers[name].readline()
        return int(line.split()[1]) if line else 0

    def leave(self, name: str) -> None:
        self.left[name] = time.monotonic()
        self._writers.pop(name).transport.abort()


def run_cancel(settings: Settings) -> Report:
    """Leave in every way, and see what ends at the bottom, and when."""
    clients = 100 if settings.is_quick else _CLIENTS
    spread_s = settings.length_s(full=10.0, quick=2.0)
    report = Report("cancel", f"{clients} clients that leave in the middle of a graph three deep", _COLUMNS)
    report.venvs.append("main")
    report.commands.append("scripts/bench cancel")
    report.facts = [f"{clients} clients each time, the first over {spread_s:g} s, one run"]
    warn_if_busy(report)
    with running_instance() as instance:
        serve.run(app)
        for title, prefix, over_s in (("one after the other", "s", spread_s), ("all at once", "o", 0.0)):
            say(f"cancel: {clients} clients leave {title}")
            delays = _leave(instance, prefix, clients, over_s)
            report.rows.append(_row(clients, title, delays))
            report.checks.append(Check(f"left {title}: cancelled at the bottom", len(delays), clients))
            if over_s:
                report.checks.append(
                    Check(f"left {title}: p99", percentile(delays, 0.99) * 1e3, 100, "ms", is_floor=False)
                )
            else:
                report.checks.append(
                    Check(f"left {title}: last", max(delays) * 1e3, 1000, "ms", is_floor=False)
                )
        say(f"cancel: {_THREADS} requests whose handler blocks a thread")
        _threads(instance, report)
        say(f"cancel: {clients} requests with {_DEADLINE_S * 1e3:g} ms")
        _deadlines(instance, clients, report)
        report.checks.append(Check("slots that were free at the end, of all three", _free(clients), clients))
    return report


def _leaf() -> DeploymentHandle:
    return serve.get_deployment_handle("Leaf", "default")


def _seen() -> dict[str, Any]:
    found: dict[str, Any] = _leaf().seen.remote().result()
    return found


async def _until(condition: Any, seconds: float = _SETTLE_S) -> bool:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def _leave(instance: Instance, prefix: str, count: int, over_s: float) -> list[float]:
    """Let clients begin, then leave within `over_s`; return how long after it each ended at the bottom."""
    names = [f"{prefix}{number}" for number in range(count)]

    async def go() -> dict[str, float]:
        clients = _Clients(instance.port)
        for name in names:
            await clients.ask(name, "do=work")
        await _until(lambda: set(names) <= _seen()["began"].keys())
        begun = time.monotonic()
        for number, name in enumerate(names):
            due = begun + over_s * number / count
            if due > time.monotonic():
                await asyncio.sleep(due - time.monotonic())
            clients.leave(name)
        await _until(lambda: set(names) <= _seen()["cancelled"].keys())
        return clients.left

    left = asyncio.run(go())
    cancelled = _seen()["cancelled"]
    return [cancelled[name] - left[name] for name in names if name in cancelled]


def _threads(instance: Instance, report: Report) -> None:
    names = [f"t{number}" for number in range(_THREADS)]
    middle = serve.get_deployment_handle("Middle", "default")

    async def go() -> list[float]:
        clients = _Clients(instance.port)
        for name in names:
            await clients.ask(name, "do=block")
        await _until(lambda: _seen()["in_threads"] == _THREADS)
        for name in names:
            clients.leave(name)
        await _until(lambda: set(names) <= middle.seen.remote().result().keys())
        released: dict[str, float] = await middle.seen.remote()
        return [released[name] - clients.left[name] for name in names if name in released]

    delays = asyncio.run(go())
    still = _seen()["in_threads"]
    _leaf().open.remote().result()
    report.rows.append(_row(_THREADS, "from a handler in a thread (its caller released)", delays))
    report.checks += [
        Check("threads: callers released", len(delays), _THREADS),
        Check("threads: last caller released", max(delays, default=99.0) * 1e3, 1000, "ms", is_floor=False),
        Check("threads: still at work then, as threads cannot be stopped", still, _THREADS),
    ]


def _deadlines(instance: Instance, count: int, report: Report) -> None:
    """Ask with a time that is sometimes over before the bottom is reached, and sometimes just not."""
    chance = random.Random(5)
    pauses = {f"d{number}": chance.uniform(0.0, 2 * _DEADLINE_S) for number in range(count)}

    async def go() -> list[int]:
        clients = _Clients(instance.port)
        for name, pause_s in pauses.items():
            await clients.ask(
                name, f"pause={pause_s:.4f}&seconds=30", f"X-Request-Timeout-Seconds: {_DEADLINE_S:g}"
            )
        return [await clients.status(name) for name in pauses]

    statuses = asyncio.run(go())
    seen = _seen()
    begun = [name for name in pauses if name in seen["began"]]
    asyncio.run(_until(lambda: set(begun) <= _seen()["cancelled"].keys()))
    open_still = set(begun) - _seen()["cancelled"].keys()
    report.notes.append(f"of {count} requests with a deadline, {len(begun)} reached the bottom in time")
    report.checks += [
        Check("deadline: answered 408", statuses.count(408), count),
        Check("deadline: began after it", len(seen["late"]), 0, is_floor=False),
        Check("deadline: not cancelled at the bottom", len(open_still), 0, is_floor=False),
    ]


def _free(count: int) -> int:
    """Return how many requests at once still get through: each slot that leaked would hold one back."""
    leaf, middle = _leaf(), serve.get_deployment_handle("Middle", "default")
    calls = [middle.pass_on.remote("work", f"f{number}", 0.0, 0.5) for number in range(count)]
    free = 0
    for call in calls:
        try:
            call.result(timeout_s=_SETTLE_S)
        except TimeoutError:
            continue
        free += 1
    leaf.seen.remote().result()
    return free


def _row(clients: int, title: str, delays: Sequence[float]) -> list[str]:
    return [
        f"{clients:,}",
        title,
        f"{len(delays):,}",
        f"{percentile(delays, 0.5) * 1e3:.1f}",
        f"{percentile(delays, 0.99) * 1e3:.1f}",
        f"{max(delays, default=0.0) * 1e3:.1f}",
    ]
