"""Requests that outlive their replica, and requests that end replicas: what their callers and everybody else see."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.fault_apps import Bomb, Relay
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import PoisonRequestError, ReplicaDiedError, RequestCancelledError
from trygon.serve.handle import DeploymentHandle


def _run(folder: Path, replicas: int, gate: str = "") -> DeploymentHandle:
    return serve.run(Bomb.options(num_replicas=replicas).bind(str(folder), gate))


def _victims(folder: Path, name: str) -> list[int]:
    """Return the replicas that were asked to die by `name`."""
    path = folder / name
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def _num_running() -> int:
    return serve.status().applications["default"].deployments["Bomb"].replica_states.get("RUNNING", 0)


def _wait_complete(handle: DeploymentHandle, replicas: int) -> None:
    def pids() -> set[int]:
        try:
            return set(handle.broadcast("pid").results(timeout_s=5))
        except Exception:
            return set()  # one of them died since

    wait_until(lambda: _num_running() == replicas and len(pids()) == replicas, f"{replicas} replicas")


# ---- sent again


def test_an_idempotent_request_is_answered_by_another_replica(url: str, tmp_path: Path) -> None:
    _run(tmp_path, 3)
    key = {"idempotency-key": "order-7"}

    answers = [
        httpx.get(f"{url}/?once=get", timeout=20),
        httpx.options(f"{url}/?once=options", timeout=20),
        httpx.post(f"{url}/?once=post", content=b"x" * 1000, headers=key, timeout=20),
    ]

    assert [200, 200, 200] == [answer.status_code for answer in answers]
    for name, answer in zip(("get", "options", "post"), answers, strict=True):
        dead, alive = _victims(tmp_path, name)
        assert dead != alive
        assert alive == answer.json()


def test_a_lone_replicas_request_is_answered_by_its_replacement(url: str, tmp_path: Path) -> None:
    _run(tmp_path, 1)

    assert 200 == httpx.get(f"{url}/?once=a", timeout=20).status_code
    assert 2 == len(_victims(tmp_path, "a"))


def test_what_may_have_effects_is_not_sent_again(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 2)

    assert 502 == httpx.post(f"{url}/?once=post", timeout=20).status_code
    assert 1 == len(_victims(tmp_path, "post"))
    _wait_complete(handle, 2)
    # Its body is longer than what is kept, which is the buffer and what one more read brought.
    long = httpx.put(
        f"{url}/?once=put", content=b"x" * 2_000_000, headers={"idempotency-key": "a"}, timeout=20
    )
    assert 502 == long.status_code
    assert 1 == len(_victims(tmp_path, "put"))
    # Else the call may go to the dead one, whose end this process has not heard of yet, and begin nowhere.
    _wait_complete(handle, 2)
    with pytest.raises(ReplicaDiedError):
        handle.die_once.remote("call").result(timeout_s=20)
    assert 1 == len(_victims(tmp_path, "call"))


def test_a_begun_answer_is_cut_and_not_begun_again(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 2)

    with pytest.raises(httpx.RemoteProtocolError), httpx.stream("GET", f"{url}/?stream=a", timeout=20) as one:
        list(one.iter_raw())
    assert 1 == len(_victims(tmp_path, "a"))

    items = handle.options(stream=True, retryable=True).items_then_die.remote("b")
    assert "first" == next(items)
    with pytest.raises(ReplicaDiedError):
        next(items)
    assert 1 == len(_victims(tmp_path, "b"))


def test_a_retryable_call_is_made_once_more(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 2)
    retryable = handle.options(retryable=True)

    async def on_a_loop() -> Any:
        return await retryable.die_once.remote("loop")

    assert isinstance(asyncio.run(on_a_loop()), int)
    assert 2 == len(_victims(tmp_path, "loop"))
    _wait_complete(handle, 2)
    items = retryable.options(stream=True).items_once.remote("stream")
    assert "last" == list(items)[1]
    assert 2 == len(_victims(tmp_path, "stream"))


def test_a_retryable_call_in_shared_memory_is_made_once_more(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 3)

    pid = handle.options(retryable=True).die_once.remote("large", b"x" * 3_000_000).result(timeout_s=20)

    assert pid == _victims(tmp_path, "large")[1]
    for expected in (ReplicaDiedError, ReplicaDiedError, PoisonRequestError):
        with pytest.raises(expected):
            handle.die.remote("poison", "exit", b"x" * 3_000_000).result(timeout_s=20)


def test_a_retryable_call_on_a_line_is_made_once_more(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 2)
    retryable = handle.options(retryable=True)

    for number in range(3):
        _wait_complete(handle, 2)
        # A thread that waits for each answer calls over lines.
        for _ in range(5):
            handle.pid.remote().result(timeout_s=20)
        call = retryable.die_once.remote(f"line{number}")
        assert isinstance(call.result(timeout_s=20), int)
        assert 2 == len(_victims(tmp_path, f"line{number}"))


def test_a_call_that_was_cancelled_meanwhile_is_not_made_again(url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    handle = _run(tmp_path, 1, str(gate))
    pid = handle.pid.remote().result(timeout_s=20)
    kept = handle.options(retryable=True).hold.remote("kept")
    dropped = handle.options(retryable=True).hold.remote("dropped")
    wait_until(lambda: _victims(tmp_path, "kept") and _victims(tmp_path, "dropped"), "both to enter")

    gate.unlink()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _num_running(), "the death")
    dropped.cancel()
    gate.touch()
    wait_until(lambda: len(_victims(tmp_path, "kept")) == 2, "the second try")
    handle.broadcast("open", "kept").results(timeout_s=20)

    assert pid != kept.result(timeout_s=20)
    with pytest.raises(RequestCancelledError):
        dropped.result(timeout_s=20)
    assert [pid] == _victims(tmp_path, "dropped")


def test_a_second_death_is_final(url: str, tmp_path: Path) -> None:
    _run(tmp_path, 3)

    answer = httpx.get(f"{url}/?die=a&how=SIGKILL", timeout=20)

    assert 502 == answer.status_code
    assert "died" in answer.text
    assert 2 == len(_victims(tmp_path, "a"))


# ---- poison


@pytest.mark.parametrize(
    "method, how, statuses",
    [
        ("GET", "exit", [502, 503, 503]),
        ("POST", "exit", [502, 502, 503]),
        ("GET", "SIGSEGV", [502, 503, 503]),
        ("POST", "SIGABRT", [502, 502, 503]),
    ],
)
def test_a_poison_costs_two_replicas_and_is_refused_with_the_reason(
    url: str, tmp_path: Path, method: str, how: str, statuses: list[int]
) -> None:
    _run(tmp_path, 4)

    answers = [httpx.request(method, f"{url}/?die=a&how={how}", timeout=20) for _ in range(3)]

    assert statuses == [answer.status_code for answer in answers]
    assert 2 == len(set(_victims(tmp_path, "a")))
    assert 2 == len(_victims(tmp_path, "a"))
    assert "ended 2 replicas" in answers[-1].text
    assert 290 < int(answers[-1].headers["retry-after"]) <= 300
    assert 200 == httpx.get(url, timeout=20).status_code


def test_poison_is_told_by_its_body(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 3)

    for expected in (502, 502, 503):
        assert expected == httpx.post(f"{url}/?body=1", content=b"please die", timeout=20).status_code
        assert 200 == httpx.post(f"{url}/?body=1", content=b"please live", timeout=20).status_code
    _wait_complete(handle, 3)


def test_a_burst_of_one_poison_takes_no_third_replica(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 4)
    # The first death makes the kind suspect; what follows at once is held back until it is judged.
    assert 502 == httpx.post(f"{url}/?die=a", timeout=20).status_code

    with ThreadPoolExecutor(8) as threads:
        burst = [threads.submit(httpx.post, f"{url}/?die=a", timeout=20) for _ in range(24)]
        statuses = Counter(one.result(30).status_code for one in burst)

    assert Counter({503: 23, 502: 1}) == statuses
    assert 2 == len(_victims(tmp_path, "a"))
    _wait_complete(handle, 4)


def test_a_poison_call_raises_a_typed_error(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 4)

    for _ in range(2):
        with pytest.raises(ReplicaDiedError):
            handle.die.remote("a").result(timeout_s=20)
    with pytest.raises(PoisonRequestError, match="ended 2 replicas of deployment 'Bomb'") as caught:
        handle.die.remote("a").result(timeout_s=20)

    assert 0 < caught.value.retry_after_s <= 300
    assert 2 == len(_victims(tmp_path, "a"))
    assert isinstance(handle.pid.remote().result(timeout_s=20), int)


def test_a_poison_call_of_a_parent_is_told_to_the_client(url: str, tmp_path: Path) -> None:
    serve.run(Relay.bind(Bomb.options(num_replicas=3).bind(str(tmp_path))))

    answers = [httpx.get(f"{url}/?die=a", timeout=20) for _ in range(3)]

    assert [502, 502, 503] == [answer.status_code for answer in answers]
    assert "ended 2 replicas of deployment 'Bomb'" in answers[-1].text
    assert 290 < int(answers[-1].headers["retry-after"]) <= 300
    assert 2 == len(_victims(tmp_path, "a"))


def test_a_mended_revision_starts_with_a_clean_slate(url: str, tmp_path: Path) -> None:
    _run(tmp_path, 2)
    assert [502, 503] == [httpx.get(f"{url}/?die=a", timeout=30).status_code for _ in range(2)]

    class Mended(Bomb.func_or_class):  # type: ignore[name-defined, misc]
        def die(self, name: str, how: str = "exit") -> None:
            return

    serve.run(serve.deployment(Mended).options(name="Bomb").bind(str(tmp_path)))

    assert 200 == httpx.get(f"{url}/?die=a", timeout=20).status_code


def test_kills_from_outside_never_open_the_circuit(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 2)

    with ThreadPoolExecutor(1) as threads:
        for round_ in range(1, 5):
            working = threads.submit(httpx.post, f"{url}/?door=a", timeout=30)
            wait_until(lambda n=round_: len(_victims(tmp_path, "a")) == n, "the request to enter")  # type: ignore[misc]
            os.kill(_victims(tmp_path, "a")[-1], signal.SIGKILL)
            assert 502 == working.result(20).status_code
            _wait_complete(handle, 2)
        handle.broadcast("open", "a").results(timeout_s=20)
        assert 200 == httpx.post(f"{url}/?door=a", timeout=20).status_code


class _Traffic:
    """Healthy GETs and POSTs, and calls when there is a handle; each thread makes one after the other."""

    def __init__(self, url: str, handle: DeploymentHandle | None = None) -> None:
        self.answers: list[tuple[str, int]] = []
        self._url = url
        self._handle = handle
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[_Traffic]:
        with ThreadPoolExecutor(6) as threads:
            work = [threads.submit(self._ask, method) for method in ("GET", "GET", "POST", "POST")]
            if self._handle is not None:
                work += [threads.submit(self._call, self._handle) for _ in range(2)]
            try:
                yield self
            finally:
                self._stop.set()
                for one in work:
                    one.result(60)

    def _ask(self, method: str) -> None:
        numbers: Callable[[], int] = itertools.count().__next__
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                # Requests of one kind, and of many.
                path = f"/?n={numbers()}" if numbers() % 4 else "/"
                self.answers.append((method, client.request(method, path).status_code))

    def _call(self, handle: DeploymentHandle) -> None:
        while not self._stop.is_set():
            handle.pid.remote().result(timeout_s=30)
            self.answers.append(("call", 200))

    def failures(self) -> Counter[tuple[str, int]]:
        return Counter(answer for answer in self.answers if answer[1] != 200)


def test_healthy_requests_survive_a_stream_of_poison(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 4)

    with _Traffic(url).running() as traffic, httpx.Client(base_url=url, timeout=30) as client:
        for number in range(4):
            method = "GET" if number % 2 else "POST"
            answers = [client.request(method, f"/?die=p{number}").status_code for _ in range(4)]
            assert set(answers[:2]) <= {502, 503}
            assert [503, 503] == answers[2:]
            seen = len(traffic.answers)
            wait_until(lambda seen=seen: len(traffic.answers) > seen + 20, "more healthy answers")  # type: ignore[misc]
            _wait_complete(handle, 4)

    assert {2} == {len(_victims(tmp_path, f"p{number}")) for number in range(4)}
    failures = traffic.failures()
    assert {("POST", 502)} >= set(failures)
    # Two threads send POSTs, eight replicas died.
    assert failures.total() <= 2 * 8


def test_random_kills_lose_no_get_and_no_retryable_call_and_open_no_circuit(url: str, tmp_path: Path) -> None:
    handle = _run(tmp_path, 4)

    with _Traffic(url, handle.options(retryable=True)).running() as traffic:
        for _ in range(6):
            os.kill(handle.pid.remote().result(timeout_s=20), signal.SIGKILL)
            seen = len(traffic.answers)
            wait_until(lambda seen=seen: len(traffic.answers) > seen + 20, "more healthy answers")  # type: ignore[misc]
            _wait_complete(handle, 4)

    failures = traffic.failures()
    assert {("POST", 502)} >= set(failures)
    assert failures.total() <= 2 * 6
