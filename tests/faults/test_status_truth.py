"""What status says is so: while it says RUNNING, a request succeeds, whatever is killed or deployed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.faults.family import of_session
from tests.faults.fault_apps import Victim
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.schema import ApplicationStatus
from trygon.serve.session import current_session


class Witness:
    """Asks for the status, sends a request, asks again; keeps what contradicts."""

    def __init__(self, url: str) -> None:
        self.statuses: list[str] = []
        self.lies: list[str] = []
        #: Requests that were sent while it said RUNNING.
        self.checked = 0
        self._url = url
        self._stop = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[Witness]:
        thread = threading.Thread(target=self._watch, name="test-witness")
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(30)

    def _watch(self) -> None:
        while not self._stop.is_set():
            before = self._status()
            answer = self._ask()
            after = self._status()
            if before == after == ApplicationStatus.RUNNING:
                self.checked += 1
                if answer != "200":
                    self.lies.append(answer)

    def _status(self) -> str:
        found = serve.status().applications.get("default")
        status = found.status if found is not None else "none"
        self.statuses.append(status)
        return status

    def _ask(self) -> str:
        try:
            return str(httpx.get(self._url, timeout=20).status_code)
        except httpx.HTTPError as error:
            return repr(error)

    def wait_for_more(self) -> None:
        seen = self.checked
        wait_until(lambda: self.checked > seen + 3, "more checks", timeout_s=20)


def test_running_means_that_a_request_succeeds_during_deploys_kills_and_redeploys(url: str) -> None:
    witness = Witness(url)
    with witness.watching():
        serve.run(Victim.options(num_replicas=2).bind())
        witness.wait_for_more()
        serve.run(Victim.bind())
        witness.wait_for_more()
        for _ in range(3):
            (replica,) = of_session("replica")
            os.kill(replica, signal.SIGKILL)
            wait_until(lambda gone=replica: of_session("replica") - {gone}, "a new replica")
            witness.wait_for_more()
        (ingress,) = of_session("ingress")
        os.kill(ingress, signal.SIGKILL)
        witness.wait_for_more()
        (controller,) = of_session("controller")
        os.kill(controller, signal.SIGKILL)
        witness.wait_for_more()

    assert [] == witness.lies
    assert witness.checked > 20


def test_a_missing_ingress_is_no_running_application(url: str) -> None:
    serve.run(Victim.bind())
    (ingress,) = of_session("ingress")
    session = current_session()
    assert session is not None
    supervisor = session.instance.record.supervisor_pid

    def status() -> str:
        return serve.status().applications["default"].status

    # Who would start its successor is held up, so that the moment lasts.
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(ingress, signal.SIGKILL)
        wait_until(lambda: status() == ApplicationStatus.DEPLOYING, "the status after the ingress's death")
        assert "not every ingress process routes" in serve.status().applications["default"].message
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_until(lambda: status() == ApplicationStatus.RUNNING, "the status after its return")
    assert 200 == httpx.get(url, timeout=20).status_code


def test_a_restarted_controller_says_running_from_its_first_answer_on(url: str) -> None:
    serve.run(Victim.options(num_replicas=2).bind())
    replicas = of_session("replica")

    told = []
    for _ in range(5):
        (controller,) = of_session("controller")
        os.kill(controller, signal.SIGKILL)
        # The call waits in the link for the next controller, whose first answer it is.
        found = serve.status()
        told.append((found.applications["default"].status, *found.proxies.values()))
        wait_until(lambda gone=controller: of_session("controller") - {gone}, "a new controller")

    assert [("RUNNING", "HEALTHY")] * 5 == told
    assert replicas == of_session("replica")


def test_a_restarted_controller_still_tells_of_an_ingress_that_is_missing(url: str) -> None:
    serve.run(Victim.bind())
    (ingress,) = of_session("ingress")
    (controller,) = of_session("controller")
    session = current_session()
    assert session is not None

    # Stopped, it neither answers nor ends: nobody starts another one for a while.
    os.kill(ingress, signal.SIGSTOP)
    try:
        os.kill(controller, signal.SIGKILL)
        assert ApplicationStatus.DEPLOYING == serve.status().applications["default"].status
    finally:
        os.kill(ingress, signal.SIGCONT)
    wait_until(
        lambda: serve.status().applications["default"].status == ApplicationStatus.RUNNING,
        "the status after its return",
    )
