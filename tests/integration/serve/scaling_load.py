"""Load on deployments that scale, and waiting for the number of their replicas."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.waiting import wait_until
from trygon import serve
from trygon.spec.status import ReplicaState


def deployment_of(app: str, name: str) -> Any:
    return serve.status().applications[app].deployments[name]


def num_running(app: str, name: str = "Busy") -> int:
    return int(deployment_of(app, name).replica_states.get("RUNNING", 0))


def wait_running(count: int, app: str, name: str = "Busy", *, timeout_s: float = 10.0) -> None:
    wait_until(
        lambda: (
            num_running(app, name) == count
            and set(deployment_of(app, name).replica_states) <= {ReplicaState.RUNNING}
        ),
        f"{count} replicas of {name}: {serve.status().applications[app].deployments[name]}",
        timeout_s=timeout_s,
    )


class Load:
    """Callers that call again and again, and what went wrong."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.answers: list[Any] = []

    @contextmanager
    def on(self, count: int, call: Callable[[], Any]) -> Iterator[None]:
        stop = threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                try:
                    self.answers.append(call())
                except Exception as error:
                    self.errors.append(error)
                    return

        threads = [threading.Thread(target=go_on) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@contextmanager
def http_caller(url: str, path: str) -> Iterator[Callable[[], str]]:
    limits = httpx.Limits(max_connections=50, max_keepalive_connections=50)
    with httpx.Client(base_url=url, timeout=20, limits=limits) as client:

        def call() -> str:
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            return answer.text

        yield call
