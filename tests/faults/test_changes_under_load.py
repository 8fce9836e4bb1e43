"""Updates and scaling under an open-loop load: no request fails, no connection is lost, nothing stays behind."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.family import only, pids
from tests.faults.open_loop import kept_and_new, sending
from tests.integration.serve.change_apps import Version
from tests.waiting import wait_until
from trygon import serve


def plain(number: int) -> Any:
    return Version.bind(number)


def several(number: int) -> Any:
    return Version.options(num_replicas=3).bind(number)


def composed(number: int) -> Any:
    child = Version.options(name="Child", num_replicas=2).bind(number)
    return Version.options(name="Parent", num_replicas=2).bind(number, child)


@pytest.mark.parametrize("app", [plain, several, composed])
def test_updates_lose_no_request_on_kept_or_new_connections(url: str, tmp_path: Path, app: Any) -> None:
    serve.run(app(0))

    with sending(url, kept_and_new(), tmp_path) as seen:
        for number in range(1, 6):
            before = pids("replica")
            serve.run(app(number))
            wait_until(lambda before=before: not before & pids("replica"), "the old replicas to leave")

    assert {"200"} == set(seen.outcomes())
    # Not the last one of the sender: the old replica may leave between two of its requests.
    assert 5 == httpx.get(url, timeout=10).json()[0]
    if app is composed:
        assert all(body[0] == body[1][0] for body in seen.bodies())


def test_scaling_up_and_down_loses_no_request(url: str, tmp_path: Path) -> None:
    serve.run(Version.bind(0))

    with sending(url, kept_and_new(), tmp_path) as seen:
        for replicas in (6, 1, 6, 1):
            serve.run(Version.options(num_replicas=replicas).bind(0))
            wait_until(
                lambda replicas=replicas: len(pids("replica")) == replicas,
                f"{replicas} replicas",
                timeout_s=20,
            )

    assert {"200"} == set(seen.outcomes())
    assert len({body[2] for body in seen.bodies()}) > 2


def test_updates_leave_no_descriptor_and_no_process_behind(url: str, tmp_path: Path) -> None:
    serve.run(composed(0))
    wait_until(lambda: 4 == len(pids("replica")), "the replicas")
    # The first request opens the page of metrics, within a second.
    assert 200 == httpx.get(url).status_code
    before = settled_descriptors()

    with sending(url, kept_and_new(), tmp_path) as seen:
        for number in range(1, 6):
            serve.run(composed(number))

    assert {"200"} == set(seen.outcomes())
    wait_until(lambda: 4 == len(pids("replica")), "the old replicas to leave")
    # Not at once: connections that the sender has left, and links to old replicas, are still closing.
    wait_until(lambda: not descriptors() - before, f"as many descriptors as before, {before}")


def settled_descriptors() -> Counter[str]:
    """What `descriptors` says once it says so for a while: links of new replicas come after they are ready."""
    last: Counter[str] = Counter()
    since = 0.0

    def settled() -> Counter[str] | None:
        nonlocal last, since
        found = descriptors()
        if found != last:
            last, since = found, time.monotonic()
        return found if time.monotonic() - since > 1.5 else None

    return wait_until(settled, "descriptors to stay as they are") or last


def descriptors() -> Counter[str]:
    """Return how many descriptors the lasting processes have open."""
    return Counter(
        {kind: psutil.Process(only(kind)).num_fds() for kind in ("supervisor", "controller", "ingress")}
    )
