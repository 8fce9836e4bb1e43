"""Deploying as a configuration file does: what did not change keeps its processes, and no request fails."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.integration.serve.change_apps import Adjustable, FailsToStart, Version
from tests.waiting import wait_until
from trygon import serve
from trygon.errors import DeployError
from trygon.graph.build import build_application
from trygon.serve import Application
from trygon.serve.handle import DeploymentHandle
from trygon.serve.session import code_location, current_session
from trygon.spec.status import ApplicationStatus, DeploymentStatus

pytestmark = pytest.mark.timeout(60)


class File:
    """Applies applications as a configuration file would, and looks at the answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        session = current_session()
        assert session is not None
        self.instance = session.instance

    def apply(self, app: Application, *, wait: bool = True) -> int:
        spec = build_application(
            app, name="app", route_prefix="/app", code=code_location(), handle_factory=DeploymentHandle
        )
        revisions = self.instance.deploy((spec,), declarative=True)
        if wait:
            self.instance.wait_running(revisions, timeout_s=30.0)
        return revisions["app"]

    def ask(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get().json()
        return found

    def ask_list(self) -> list[Any]:
        found: list[Any] = self.get().json()
        return found

    def get(self, **query: str) -> httpx.Response:
        answer = httpx.get(f"{self.url}/app", params=query, timeout=20)
        assert 200 == answer.status_code, answer.text
        return answer

    def ask_all(self, count: int) -> dict[int, dict[str, Any]]:
        """Return an answer of each of `count` replicas, by pid."""
        found: dict[int, dict[str, Any]] = {}

        def look() -> bool:
            answer = self.ask()
            found[answer["pid"]] = answer
            return len(found) >= count

        wait_until(look, f"answers of {count} replicas")
        return found

    @contextmanager
    def load(self) -> Iterator[Counter[int]]:
        """Ask all the time; give the statuses, complete when the block ends."""
        statuses: Counter[int] = Counter()
        stop = threading.Event()

        def work() -> None:
            with httpx.Client(timeout=20) as client:
                while not stop.is_set():
                    statuses[client.get(f"{self.url}/app").status_code] += 1

        with ThreadPoolExecutor(3) as threads:
            running = [threads.submit(work) for _ in range(3)]
            try:
                wait_until(lambda: statuses[200] > 3, "first answers")
                yield statuses
            finally:
                stop.set()
                for one in running:
                    one.result(30)


@pytest.fixture
def file(url: str) -> Iterator[File]:
    yield File(url)
    serve.delete("app")


def test_user_config_reaches_the_running_processes_and_no_request_fails(file: File) -> None:
    file.apply(Adjustable.options(num_replicas=2, user_config={"t": 1}).bind(1))
    before = file.ask_all(2)

    with file.load() as statuses:
        for t in range(2, 5):
            file.apply(Adjustable.options(num_replicas=2, user_config={"t": t}).bind(1))

    after = file.ask_all(2)
    assert {200} == set(statuses)
    assert before.keys() == after.keys()
    assert [({"t": 4}, 4)] * 2 == [(a["config"], a["times"]) for a in after.values()]


def test_same_file_twice_changes_nothing(file: File) -> None:
    app = Adjustable.options(user_config=1)
    first = file.apply(app.bind(1))
    before = file.ask()

    assert first == file.apply(app.bind(1))
    assert before == file.ask()


def test_scaling_keeps_the_processes_that_stay_and_tells_them_the_world_size(file: File) -> None:
    file.apply(Adjustable.options(num_replicas=1).bind(1))
    (first,) = file.ask_all(1)

    with file.load() as statuses:
        file.apply(Adjustable.options(num_replicas=3).bind(1))
        three = file.ask_all(3)
        file.apply(Adjustable.options(num_replicas=1).bind(1))

    assert {200} == set(statuses)
    assert first in three
    assert {0, 1, 2} == {answer["rank"] for answer in three.values()}
    assert {3} == {answer["world_size"] for answer in three.values()}
    assert (first, 1) == (file.ask()["pid"], file.ask()["world_size"])


def test_arguments_roll(file: File) -> None:
    file.apply(Adjustable.bind(1))
    before = file.ask()

    file.apply(Adjustable.bind(2))

    after = file.ask()
    assert 2 == after["version"]
    assert before["pid"] != after["pid"]


def test_only_the_deployment_that_changed_gets_new_processes(file: File) -> None:
    def app(top: int, leaf: int) -> Application:
        return Version.options(name="Top").bind(top, Version.options(name="Leaf").bind(leaf))

    def ask() -> Any:
        return httpx.get(f"{file.url}/app", timeout=20).json()

    file.apply(app(1, 1))
    (_, (_, _, leaf_pid), top_pid) = ask()
    with file.load() as statuses:
        file.apply(app(1, 2))
        (_, (leaf_version, _, new_leaf_pid), kept_top_pid) = ask()
        file.apply(app(2, 2))
    (top_version, (_, _, kept_leaf_pid), new_top_pid) = ask()

    assert {200} == set(statuses)
    assert (2, 2) == (leaf_version, top_version)
    assert top_pid == kept_top_pid
    assert leaf_pid != new_leaf_pid
    assert new_leaf_pid == kept_leaf_pid
    assert kept_top_pid != new_top_pid


def test_more_ongoing_requests_are_taken_by_the_same_process(file: File) -> None:
    app = Version.options(name="Main", max_ongoing_requests=1)
    file.apply(app.bind(1))
    pid = file.ask_list()[2]
    handle = serve.get_deployment_handle("Main", "app")

    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(file.get, door="slow") for _ in range(3)]
        file.apply(app.options(max_ongoing_requests=5).bind(1))
        wait_until(lambda: handle.count.remote("slow").result(timeout_s=10) == 3, "three requests at once")
        handle.open.remote("slow").result(timeout_s=10)
        answers = [one.result(20).json() for one in waiting]

    assert [pid] * 3 == [answer[2] for answer in answers]


def test_refused_user_config_is_shown_with_its_traceback_and_mended_by_the_next_file(file: File) -> None:
    file.apply(Adjustable.options(user_config=1).bind(1))
    before = file.ask()

    file.apply(Adjustable.options(user_config="impossible").bind(1), wait=False)
    wait_until(
        lambda: file.instance.status().applications["app"].status is ApplicationStatus.UNHEALTHY,
        "the application to be unhealthy",
    )
    overview = file.instance.status().applications["app"].deployments["Adjustable"]
    assert DeploymentStatus.UNHEALTHY == overview.status
    assert "ValueError: no such threshold" in overview.message
    assert before == file.ask(), "it serves on as it was"

    file.apply(Adjustable.options(user_config=1).bind(1))
    assert (before["pid"], 1, 2) == tuple(file.ask()[key] for key in ("pid", "config", "times"))


@pytest.mark.parametrize("surge", [0, 34, 100])
def test_update_in_batches_fails_no_request(file: File, surge: int) -> None:
    def app(version: int) -> Application:
        return Adjustable.options(num_replicas=3, max_surge_percent=surge).bind(version)

    file.apply(app(1))
    with file.load() as statuses:
        file.apply(app(2))

    assert {200} == set(statuses)
    assert {2} == {answer["version"] for answer in file.ask_all(3).values()}


def test_failing_batch_leaves_the_old_version_serving_whole(file: File) -> None:
    options = {"num_replicas": 2, "max_surge_percent": 0, "max_constructor_retry_count": 1}
    file.apply(Version.options(**options).bind(1))

    with file.load() as statuses:
        with pytest.raises(DeployError, match="version 2 has no model file"):
            file.apply(FailsToStart.options(**options).bind(2))
        wait_until(
            lambda: (
                {"RUNNING": 2}
                == file.instance.status().applications["app"].deployments["Version"].replica_states
            ),
            "the old version to be whole again",
        )

    assert {200} == set(statuses)
    file.apply(Version.options(**options).bind(3))
    assert 3 == file.ask_list()[0]
