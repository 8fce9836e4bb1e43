"""The controller, the ingress and replicas killed again and again under load: what the clients saw."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from bench.load import Target
from tests.faults.family import only, pids
from tests.faults.fault_apps import Victim
from tests.faults.open_loop import kept_and_new, sending
from tests.integration.serve.change_apps import Version
from tests.waiting import wait_until
from trygon import serve

KILLS = 4
REPLICA_KILLS = 8


def test_a_deploy_is_carried_out_while_the_controller_is_killed_again_and_again(
    url: str, tmp_path: Path
) -> None:
    version = Version.options(num_replicas=2)
    serve.run(version.bind(0))
    first = pids("replica")

    with sending(url, kept_and_new(), tmp_path) as seen, ThreadPoolExecutor(1) as thread:
        for _ in range(KILLS):
            kill_and_wait("controller")
            wait_until(is_running, "a good status")
        assert first == pids("replica")
        deploying = thread.submit(serve.run, version.bind(1))
        for _ in range(KILLS):
            kill_and_wait("controller")
        deploying.result(30)
        wait_until(lambda: not first & pids("replica"), "the old replicas to leave", timeout_s=20)
        wait_until(lambda: 1 == httpx.get(url).json()[0], "the new version's answers")

    assert {"200"} == set(seen.outcomes())
    assert 2 == len(pids("replica"))
    wait_until(is_running, "a good status")


def is_running() -> bool:
    return serve.status().applications["default"].status == "RUNNING"


def kill_and_wait(kind: str) -> None:
    victim = only(kind)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: pids(kind) - {victim}, f"another {kind}")


def test_a_killed_ingress_refuses_nobody_and_hurts_no_replica(url: str, tmp_path: Path) -> None:
    handle = serve.run(Victim.options(num_replicas=2).bind())
    replicas = pids("replica")

    with sending(url, [Target("new", "/", 60, is_fresh=True)], tmp_path) as seen:
        for _ in range(KILLS):
            kill_and_wait("ingress")
            assert handle.pid.remote().result(timeout_s=10) in replicas
            assert httpx.get(url, timeout=10).json() in replicas

    # Who had a connection to it loses that; a newcomer waits for the next one.
    assert set(seen.outcomes()) <= {"200", "closed", "reset"}
    assert replicas == pids("replica")
    wait_until(is_running, "a good status")


def test_replicas_killed_again_and_again_are_each_replaced(url: str) -> None:
    serve.run(Victim.options(num_replicas=4).bind())
    stop = threading.Event()
    callers = 4

    def ask(method: str) -> Counter[int]:
        found: Counter[int] = Counter()
        with httpx.Client(base_url=url, timeout=20) as client:
            while not stop.is_set():
                found[client.request(method, "/").status_code] += 1
        return found

    with ThreadPoolExecutor(callers) as threads:
        asking = [threads.submit(ask, method) for method in ("GET", "POST") * (callers // 2)]
        try:
            known = pids("replica")
            for _ in range(REPLICA_KILLS):
                os.kill(random.choice(sorted(pids("replica"))), signal.SIGKILL)
                # Status alone is not enough: for a moment it has not heard of the death.
                wait_until(lambda: pids("replica") - known and is_whole(), "four replicas", timeout_s=20)
                known.update(pids("replica"))
        finally:
            stop.set()
        found = sum((one.result(30) for one in asking), Counter[int]())

    assert set(found) <= {200, 502}
    # A caller has one request at a time, so a kill meets each of them at most once.
    assert found[502] <= REPLICA_KILLS * callers
    assert found[200] > found[502]
    wait_until(is_running, "a good status")


def is_whole() -> bool:
    states = serve.status().applications["default"].deployments["Victim"].replica_states
    return {"RUNNING": 4} == {str(state): count for state, count in states.items()}
