"""Changing what runs: no request fails, a failing version leaves the old one serving, deletes, statuses."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.integration.serve.change_apps import (
    DiesAtStart,
    FailsToReconfigure,
    FailsToStart,
    NotConfigurable,
    Sick,
    Version,
)
from tests.integration.serve.conftest import RunApp
from tests.waiting import wait_until
from trygon import serve
from trygon.serve import RunTarget
from trygon.serve.exceptions import DeployError, DeploymentUnavailableError
from trygon.serve.handle import DeploymentHandle
from trygon.serve.schema import ApplicationStatus, DeploymentStatus, ReplicaState, ServeStatus

pytestmark = pytest.mark.timeout(60)


class Hammer:
    """Clients that ask again and again until the block ends; counts every answer."""

    def __init__(self, url: str, path: str, handle: DeploymentHandle) -> None:
        self.http: Counter[Any] = Counter()
        self.handle: Counter[Any] = Counter()
        self._stop = threading.Event()
        self._url, self._path, self._target = url, path, handle

    @contextmanager
    def running(self) -> Iterator[Hammer]:
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
        with httpx.Client(base_url=self._url, timeout=20) as client:
            while not self._stop.is_set():
                answer = client.get(self._path)
                version = tuple(answer.json()[:2]) if answer.status_code == 200 else answer.text
                self.http[answer.status_code, version] += 1

    def _ask_handle(self) -> None:
        while not self._stop.is_set():
            try:
                self.handle[tuple(self._target.remote().result(timeout_s=20)[:2])] += 1
            except Exception as error:
                self.handle[type(error).__name__, str(error)] += 1

    def versions(self) -> tuple[set[Any], set[Any]]:
        """Return which answers were seen over HTTP and by handle."""
        return set(self.http), set(self.handle)

    def wait_for(self, version: Any) -> None:
        wait_until(
            lambda: self.http[200, version] > 3 and self.handle[version] > 3, f"answers of version {version}"
        )


@pytest.mark.parametrize("replicas", [1, 3])
def test_redeploying_under_load_fails_no_request(url: str, run_app: RunApp, replicas: int) -> None:
    version = Version.options(num_replicas=replicas)
    handle = run_app(version.bind(0), name="app", route_prefix="/app")

    with Hammer(url, "/app", handle).running() as hammer:
        for number in range(1, 5):
            hammer.wait_for((number - 1, None))
            run_app(version.bind(number), name="app", route_prefix="/app")
        hammer.wait_for((4, None))

    expected = {(number, None) for number in range(5)}
    assert ({(200, answer) for answer in expected}, expected) == hammer.versions()


def test_a_parent_never_meets_a_child_of_another_version(url: str, run_app: RunApp) -> None:
    def app(number: int) -> Any:
        return Version.options(name="Parent").bind(number, Version.options(name="Child").bind(number))

    handle = run_app(app(0), name="app", route_prefix="/app")
    #: How often a parent of one version answered with a child of another, by both versions.
    http: Counter[tuple[int, int]] = Counter()
    by_handle: Counter[tuple[int, int]] = Counter()
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while not stop.is_set():
                answer = client.get("/app")
                assert 200 == answer.status_code
                parent, child, _ = answer.json()
                http[parent, child[0]] += 1
                parent, child, _ = handle.remote().result(timeout_s=20)
                by_handle[parent, child[0]] += 1

    with ThreadPoolExecutor(4) as threads:
        work = [threads.submit(ask) for _ in range(4)]
        try:
            for number in range(4):
                # A redeploy that is over before anybody asked would prove nothing.
                same = (number, number)
                wait_until(
                    lambda same=same: (
                        (http[same] > 3 and by_handle[same] > 3) or any(one.done() for one in work)
                    ),
                    f"answers of version {number}",
                )
                if number < 3:
                    run_app(app(number + 1), name="app", route_prefix="/app")
        finally:
            stop.set()
        for one in work:
            one.result(30)

    expected = {(number, number) for number in range(4)}
    assert (expected, expected) == (set(http), set(by_handle))


def test_the_new_version_serves_when_run_returns(run_app: RunApp, client: httpx.Client) -> None:
    for number in range(5):
        handle = run_app(Version.bind(number), name="app", route_prefix="/app")
        assert number == client.get("/app").json()[0]
        assert number == handle.remote().result(timeout_s=5)[0]


def test_an_ongoing_request_is_finished_by_its_old_version(
    url: str, run_app: RunApp, client: httpx.Client
) -> None:
    old = run_app(Version.bind(1), name="app", route_prefix="/app")
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.get, "/app?door=slow")
        by_handle = old.wait.remote("slow")
        opening = old.open_later.remote("slow", "redeployed")
        wait_until(lambda: old.count.remote("slow").result() == 2, "both requests to enter")
        wait_until(lambda: old.count.remote("redeployed").result() == 1, "the opener to wait")

        run_app(Version.bind(2), name="app", route_prefix="/app")
        assert 2 == httpx.get(f"{url}/app").json()[0]
        assert not waiting.done()
        opening.cancel()

        assert 1 == waiting.result().json()[0]
        assert "slow" == by_handle.result(timeout_s=5)


# ---- versions that fail


@pytest.mark.parametrize(
    "target, text",
    [
        (FailsToStart.bind(2), "version 2 has no model file"),
        (DiesAtStart.bind(), "7"),
        (Sick.bind(), "the model answers nonsense"),
        (NotConfigurable.bind(), "reconfigure"),
        (FailsToReconfigure.bind(), "cannot take {'a': 1}"),
    ],
)
def test_a_failing_version_leaves_the_old_one_serving(
    run_app: RunApp, client: httpx.Client, target: Any, text: str
) -> None:
    handle = run_app(Version.bind(1), name="app", route_prefix="/app")

    with pytest.raises(DeployError) as failed:
        serve.run(target, name="app", route_prefix="/app")

    assert isinstance(failed.value, RuntimeError)
    assert text in str(failed.value)
    found = serve.status().applications["app"]
    assert ApplicationStatus.DEPLOY_FAILED == found.status
    assert text in found.message
    assert 1 == client.get("/app").json()[0]
    assert 1 == handle.remote().result(timeout_s=5)[0]

    run_app(Version.bind(3), name="app", route_prefix="/app")
    assert 3 == client.get("/app").json()[0]
    assert "RUNNING" == serve.status().applications["app"].status


def test_a_first_version_that_fails_is_explained_everywhere(url: str, client: httpx.Client) -> None:
    with pytest.raises(DeployError, match="no model file") as failed:
        serve.run(FailsToStart.bind(1), name="app", route_prefix="/app")
    try:
        assert "change_apps.py" in str(failed.value)
        assert "trygon/processes" not in str(failed.value)
        status = serve.status().applications["app"]
        assert ("DEPLOY_FAILED", "DEPLOY_FAILED") == (status.status, status.deployments["Version"].status)
        answer = client.get("/app")
        assert 503 == answer.status_code
        assert "could not be started" in answer.text
        with pytest.raises(DeploymentUnavailableError, match="could not be started"):
            serve.get_app_handle("app").remote().result(timeout_s=5)
    finally:
        serve.delete("app")


def test_a_failing_application_leaves_others_alone(run_app: RunApp, client: httpx.Client) -> None:
    run_app(Version.bind(1), name="good", route_prefix="/good")

    with pytest.raises(DeployError):
        serve.run(FailsToStart.bind(1), name="bad", route_prefix="/bad")
    try:
        assert 1 == client.get("/good").json()[0]
        assert "RUNNING" == serve.status().applications["good"].status
    finally:
        serve.delete("bad")


# ---- several applications


def test_run_many_deploys_all_or_none(url: str, client: httpx.Client) -> None:
    targets = [RunTarget(Version.bind(n), name=f"many{n}", route_prefix=f"/many{n}") for n in range(3)]
    try:
        handles = serve.run_many(targets)
        assert [0, 1, 2] == [handle.remote().result(timeout_s=5)[0] for handle in handles]
        assert [0, 1, 2] == [client.get(f"/many{n}").json()[0] for n in range(3)]
    finally:
        for n in range(3):
            serve.delete(f"many{n}")
    with pytest.raises(ValueError, match="unique"):
        serve.run_many([targets[0], targets[0]])
    with pytest.raises(ValueError, match="at least one"):
        serve.run_many([])


def test_a_taken_route_prefix_is_refused(run_app: RunApp, client: httpx.Client) -> None:
    run_app(Version.bind(1), name="one", route_prefix="/taken")

    with pytest.raises(Exception, match=r"/taken.*one|one.*/taken") as refused:
        serve.run(Version.bind(2), name="two", route_prefix="/taken")

    assert isinstance(refused.value, RuntimeError)
    assert 1 == client.get("/taken").json()[0]
    assert "two" not in serve.status().applications


def test_an_application_may_move(run_app: RunApp, client: httpx.Client) -> None:
    run_app(Version.bind(1), name="app", route_prefix="/here")
    run_app(Version.bind(2), name="app", route_prefix="/there")

    assert 404 == client.get("/here").status_code
    assert 2 == client.get("/there").json()[0]
    run_app(Version.bind(3), name="app", route_prefix=None)
    assert 404 == client.get("/there").status_code
    assert 3 == serve.get_app_handle("app").remote().result()[0]


# ---- deleting


def test_deleting_finishes_what_is_ongoing(url: str, client: httpx.Client) -> None:
    serve.run(Version.bind(1), name="app", route_prefix="/app")
    keeper = serve.get_app_handle("app")
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(client.get, "/app?door=late")
        wait_until(lambda: keeper.count.remote("late").result() == 1, "the request to enter")
        opening = keeper.open_later.remote("late", "delete-begins")
        wait_until(lambda: keeper.count.remote("delete-begins").result() == 1, "the opener to wait")

        deleting = threads.submit(serve.delete, "app")
        wait_until(lambda: 404 == httpx.get(f"{url}/app").status_code, "the route to go")
        assert not waiting.done()
        assert "DELETING" == serve.status().applications["app"].status
        opening.cancel()

        assert 200 == waiting.result(20).status_code
        deleting.result(20)
    assert "app" not in serve.status().applications
    serve.delete("app")


def test_a_deleted_name_and_route_are_free_again(run_app: RunApp, client: httpx.Client) -> None:
    for number in range(3):
        serve.run(Version.bind(number), name="app", route_prefix="/app")
        assert number == client.get("/app").json()[0]
        serve.delete("app")
        assert 404 == client.get("/app").status_code


# ---- status


def test_status_says_what_runs(run_app: RunApp) -> None:
    app = Version.options(name="Parent", num_replicas=2).bind(1, Version.options(name="Child").bind(1))
    run_app(app, name="app", route_prefix="/app")

    found = serve.status()

    assert isinstance(found, ServeStatus)
    assert found.target_capacity is None
    assert {"HEALTHY"} == set(found.proxies.values())
    one = found.applications["app"]
    assert (ApplicationStatus.RUNNING, "") == (one.status, one.message)
    assert one.last_deployed_time_s > 1e9
    assert {"Parent", "Child"} == set(one.deployments)
    parent = one.deployments["Parent"]
    assert (DeploymentStatus.HEALTHY, {ReplicaState.RUNNING: 2}, "") == (
        parent.status,
        parent.replica_states,
        parent.message,
    )
    assert "CONFIG_UPDATE_COMPLETED" == parent.status_trigger
