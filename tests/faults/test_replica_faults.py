"""Replicas that die or freeze under load: only what was in work on them fails, at once, and they are replaced."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.fault_apps import Front, Victim, wait_until_stuck
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import ReplicaDiedError, ReplicaUnavailableError
from trygon.serve.handle import DeploymentHandle


class Load:
    """Steady callers over HTTP and by handle, and what they got."""

    def __init__(self, url: str, handle: DeploymentHandle) -> None:
        self.http: list[tuple[int, str]] = []
        self.handle: list[Any] = []
        self._url, self._handle = url, handle
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Load]:
        with ThreadPoolExecutor(6) as threads:
            work = [threads.submit(self._ask_http) for _ in range(3)]
            work += [threads.submit(self._ask_handle) for _ in range(3)]
            try:
                yield self
            finally:
                self._stop.set()
                for one in work:
                    one.result(30)

    def _ask_http(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10) as client:
            while not self._stop.is_set():
                answer = client.get("/")
                self.http.append((answer.status_code, answer.text))

    def _ask_handle(self) -> None:
        while not self._stop.is_set():
            try:
                self.handle.append(self._handle.pid.remote().result(timeout_s=10))
            except Exception as error:
                self.handle.append(error)

    def pids(self) -> set[int]:
        return {int(text) for status, text in self.http if status == 200} | {
            one for one in self.handle if isinstance(one, int)
        }

    def wait_for_more(self, count: int = 30) -> None:
        seen = len(self.http), len(self.handle)
        wait_until(
            lambda: len(self.http) > seen[0] + count and len(self.handle) > seen[1] + count, "more answers"
        )

    def failures(self) -> tuple[Counter[int], Counter[str]]:
        return (
            Counter(status for status, _ in self.http if status != 200),
            Counter(type(one).__name__ for one in self.handle if not isinstance(one, int)),
        )


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_killed_replica_fails_only_its_own_requests_and_is_replaced(url: str, replicas: int) -> None:
    handle = serve.run(Victim.options(num_replicas=replicas).bind())

    with Load(url, handle).running() as load:
        wait_until(lambda: len(load.pids()) == replicas, "answers of every replica")
        before = load.pids()
        os.kill(next(iter(before)), signal.SIGKILL)
        wait_until(lambda: load.pids() - before, "answers of the replacement")
        load.wait_for_more()

    http, by_handle = load.failures()
    # At most one request of each caller was on the replica that died; GETs were sent again.
    assert Counter() == http
    assert set(by_handle) <= {"ReplicaDiedError"}
    assert by_handle.total() <= 3
    assert "RUNNING" == serve.status().applications["default"].status


def test_requests_in_work_fail_at_once_and_queued_ones_do_not(url: str) -> None:
    handle = serve.run(Victim.options(max_ongoing_requests=2).bind())
    pid = handle.pid.remote().result()

    with ThreadPoolExecutor(8) as threads, httpx.Client(base_url=url, timeout=30) as client:
        working = threads.submit(client.post, "/?door=a")
        wait_until(lambda: handle.count.remote("a").result() == 1, "the request to enter")
        by_handle = handle.wait.remote("a")
        queued = [threads.submit(client.get, "/") for _ in range(3)]
        queued_calls = [handle.pid.remote() for _ in range(3)]
        wait_until(lambda: psutil.pid_exists(pid), "the replica")
        os.kill(pid, signal.SIGKILL)

        assert 502 == working.result(10).status_code
        assert "died" in working.result().text
        with pytest.raises(ReplicaDiedError, match="died"):
            by_handle.result(timeout_s=10)
        statuses = Counter(one.result(10).status_code for one in queued)
        outcomes = [_outcome(call) for call in queued_calls]

    assert 3 == statuses[200]
    assert all(isinstance(one, int | ReplicaDiedError) for one in outcomes)
    assert sum(isinstance(one, ReplicaDiedError) for one in outcomes) <= 1


def _outcome(call: Any) -> Any:
    try:
        return call.result(timeout_s=10)
    except ReplicaDiedError as error:
        return error


def test_a_begun_stream_is_cut(url: str) -> None:
    handle = serve.run(Victim.bind())
    pid = handle.pid.remote().result()
    items = handle.options(stream=True).items.remote()
    assert pid == next(items)

    with httpx.Client(base_url=url, timeout=10) as client, client.stream("GET", "/?stream=1") as answer:
        parts = answer.iter_raw()
        assert b"begun" == next(parts)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            next(parts)
    with pytest.raises(ReplicaDiedError):
        next(items)


def test_user_code_that_ends_the_process_fails_its_request(url: str) -> None:
    handle = serve.run(Victim.bind())

    # A third time it would be refused.
    for number in range(2):
        assert 502 == httpx.post(f"{url}/?die={number}", timeout=10).status_code
        # The ingress heard of the death first: a call that this process sends before it hears is lost too.
        wait_until(lambda: isinstance(_outcome(handle.pid.remote()), int), "an answer by handle")
        with pytest.raises(ReplicaDiedError):
            handle.die.remote().result(timeout_s=10)
        wait_until(lambda: 200 == httpx.get(url, timeout=10).status_code, "an answer over HTTP")


def test_a_parent_hears_of_its_childs_death(url: str) -> None:
    front = serve.run(Front.bind(Victim.options(num_replicas=2).bind()))

    # A third time it would be refused.
    for _ in range(2):
        assert "ReplicaDiedError" == front.caught.remote().result(timeout_s=10)
        assert {"int"} == set(front.many.remote(50).result(timeout_s=10))
        assert 200 == httpx.get(url, timeout=10).status_code


def test_a_chosen_replica_that_died_is_unavailable(url: str) -> None:
    import asyncio

    handle = serve.run(Victim.bind())
    pid = handle.pid.remote().result()

    async def choose() -> None:
        async with handle.choose_replica() as selection:
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(wait_until, lambda: not _lives(pid), "the replica's end")
            await handle.pid.remote()
            await handle.dispatch(selection)

    with pytest.raises((ReplicaUnavailableError, ReplicaDiedError)):
        asyncio.run(choose())


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_frozen_replica_leaves_the_rotation(url: str) -> None:
    handle = serve.run(Victim.options(num_replicas=3).bind())
    pids = {handle.pid.remote().result() for _ in range(60)}
    frozen = next(iter(pids))

    os.kill(frozen, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(2) as threads, httpx.Client(base_url=url, timeout=30) as client:
            stuck = [
                wait_until_stuck(threads, lambda: httpx.get(url, timeout=30).json()),
                wait_until_stuck(threads, lambda: handle.pid.remote().result(timeout_s=30)),
            ]
            for _ in range(100):
                assert client.get("/").json() in pids - {frozen}
                assert handle.pid.remote().result(timeout_s=10) in pids - {frozen}
            assert not any(one.done() for one in stuck)
            os.kill(frozen, signal.SIGCONT)
            assert [frozen, frozen] == [one.result(10) for one in stuck]
    finally:
        if _lives(frozen):
            os.kill(frozen, signal.SIGCONT)


def test_a_thawed_replica_serves_again(url: str) -> None:
    handle = serve.run(Victim.options(num_replicas=2).bind())
    pids = {handle.pid.remote().result() for _ in range(40)}
    assert 2 == len(pids)
    frozen = next(iter(pids))

    os.kill(frozen, signal.SIGSTOP)
    waiting = [handle.pid.remote() for _ in range(10)]
    others = Counter(_late(one) for one in waiting)
    os.kill(frozen, signal.SIGCONT)

    assert 10 == others.total()
    for one in waiting:
        assert one.result(timeout_s=10) in pids
    wait_until(lambda: frozen in {handle.pid.remote().result(timeout_s=10) for _ in range(10)}, "its answers")


def _late(call: Any) -> Any:
    try:
        return call.result(timeout_s=0.5)
    except TimeoutError:
        return "waits"


def test_traffic_flows_without_a_controller_and_deploying_works_later(url: str) -> None:
    handle = serve.run(Victim.options(num_replicas=2).bind())
    controller = _controller()

    with Load(url, handle).running() as load:
        load.wait_for_more()
        os.kill(controller, signal.SIGKILL)
        load.wait_for_more(100)
        wait_until(lambda: _controller_or_none() not in {None, controller}, "another controller")
        load.wait_for_more(100)
        before = load.pids()
        serve.run(Victim.options(num_replicas=2).bind())
        wait_until(lambda: len(load.pids() - before) == 2, "the new version's answers")

    assert (Counter(), Counter()) == load.failures()
    assert 2 == len(before)
    assert "RUNNING" == serve.status().applications["default"].status


def _controller_or_none() -> int | None:
    for process in psutil.Process().children(recursive=True) + list(psutil.process_iter()):
        try:
            if (
                process.name().startswith("trygon-controll")
                and process.environ().get("TRYGON_HOME") == os.environ["TRYGON_HOME"]
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                return int(process.pid)
        except (psutil.Error, OSError):
            continue
    return None


def _controller() -> int:
    return wait_until(_controller_or_none, "the controller's process")  # type: ignore[return-value]
