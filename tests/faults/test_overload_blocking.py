"""User code that blocks: others are served, its client can leave, nothing is killed for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faults.fault_apps import Victim, wait_until_stuck
from tests.integration.serve.http_apps import AsyncInit
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.exceptions import RequestCancelledError


@pytest.fixture
def go_on(short_path: Path) -> Iterator[Path]:
    """Give a file that lets blocked code go on when it exists; it does at the end, whatever happens."""
    path = short_path / "go-on"
    yield path
    path.touch()


@pytest.mark.parametrize("method", ["block", "block_sync"])
def test_a_blocked_replica_hurts_nobody_else(url: str, go_on: Path, method: str) -> None:
    serve.run(AsyncInit.bind("other"), name="other", route_prefix="/other")
    handle = serve.run(Victim.options(num_replicas=2).bind(), name="victim", route_prefix="/victim")
    blocked = getattr(handle, method).remote(str(go_on))

    with httpx.Client(base_url=url, timeout=10) as client, ThreadPoolExecutor(1) as threads:
        # The ingress learns that the loop is blocked from the first request that meets it.
        if method == "block":
            wait_until_stuck(threads, lambda: httpx.get(f"{url}/victim", timeout=30))
        for _ in range(40):
            assert 200 == client.get("/-/healthz").status_code
            assert "other" == client.get("/other").text
            assert client.get("/victim").json() > 0
            assert handle.pid.remote().result(timeout_s=10) > 0
        with pytest.raises(TimeoutError):
            blocked.result(timeout_s=0)
        go_on.touch()

    assert blocked.result(timeout_s=10) > 0


@pytest.mark.parametrize("method", ["block", "block_sync"])
def test_a_caller_leaves_blocked_code(url: str, go_on: Path, method: str) -> None:
    handle = serve.run(Victim.bind())
    pid = handle.pid.remote().result()
    blocked = getattr(handle, method).remote(str(go_on))

    blocked.cancel()

    with pytest.raises(RequestCancelledError):
        blocked.result(timeout_s=10)
    go_on.touch()
    assert pid == handle.pid.remote().result(timeout_s=10)


def test_sync_code_that_blocks_leaves_async_methods_running(url: str, go_on: Path) -> None:
    handle = serve.run(Victim.options(max_ongoing_requests=4).bind())
    blocked = [handle.block_sync.remote(str(go_on)) for _ in range(3)]

    for _ in range(50):
        assert handle.pid.remote().result(timeout_s=10)
        assert handle.pid_sync.remote().result(timeout_s=10)
        assert 200 == httpx.get(url, timeout=10).status_code
    go_on.touch()

    assert 3 == len([one.result(timeout_s=10) for one in blocked])


def test_requests_wait_for_a_blocked_only_replica(url: str, go_on: Path) -> None:
    handle = serve.run(Victim.bind())
    pid = handle.pid.remote().result()
    blocked = handle.block.remote(str(go_on))

    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(httpx.get, url, timeout=20) for _ in range(4)]
        assert 200 == httpx.get(f"{url}/-/healthz", timeout=10).status_code
        assert not any(one.done() for one in waiting)
        go_on.touch()
        assert {str(pid)} == {one.result().text for one in waiting}
    assert pid == blocked.result(timeout_s=10)


def test_a_flood_over_a_full_queue_is_refused_at_once(url: str, go_on: Path) -> None:
    handle = serve.run(Victim.options(max_ongoing_requests=2, max_queued_requests=2).bind())
    blocked = [handle.block_sync.remote(str(go_on)) for _ in range(2)]

    with ThreadPoolExecutor(30) as threads, httpx.Client(base_url=url, timeout=20) as client:
        answers = [threads.submit(client.get, "/") for _ in range(30)]
        refused = wait_until(
            lambda: done if len(done := [one for one in answers if one.done()]) >= 26 else None,
            "the refusals",
        )
        assert {503} == {one.result().status_code for one in refused}
        assert all("retry-after" in one.result().headers for one in refused)
        assert 200 == client.get("/-/healthz").status_code
        go_on.touch()
        statuses = [one.result().status_code for one in answers]

    assert 2 <= statuses.count(200) <= 4
    assert 30 == statuses.count(200) + statuses.count(503)
    assert 2 == len([one.result(timeout_s=10) for one in blocked])
