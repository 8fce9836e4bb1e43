"""What `trygon run` tells, and what it tells only once."""

from __future__ import annotations

import io

import pytest

from trygon.cli.report import Report, base_url
from trygon.cli.terminal import Terminal
from trygon.cli.work import Outcome
from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec
from trygon.spec.instance import InstanceRecord
from trygon.spec.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
)

TRACE = 'Traceback (most recent call last):\n  File "a.py", line 3, in __init__\nValueError: no weights'


class FixedClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Told:
    """A report and everything it wrote."""

    def __init__(self) -> None:
        self._screen = io.StringIO()
        self.clock = FixedClock()
        self.report = Report(Terminal(self._screen), "shop:app", self.clock)

    @property
    def text(self) -> str:
        return self._screen.getvalue()


def record(host: str = "127.0.0.1", port: int = 8000) -> InstanceRecord:
    return InstanceRecord(
        name="i-1",
        pid=1,
        supervisor_pid=2,
        host=host,
        port=port,
        controller_address="/r/c",
        runtime_dir="/r",
        state_dir="/s",
        log_dir="/s/logs",
    )


def spec(route_prefix: str | None = "/", docs_path: str | None = None) -> ApplicationSpec:
    return ApplicationSpec(
        route_prefix=route_prefix,
        ingress="Shop",
        deployments=(
            DeploymentSpec(
                name="Price", app_name="default", definition=b"", options=DeploymentOptions(num_replicas=2)
            ),
            DeploymentSpec(name="Shop", app_name="default", definition=b"", docs_path=docs_path),
        ),
    )


def progress(message: str, status: DeploymentStatus = DeploymentStatus.UPDATING) -> ApplicationStatusOverview:
    return ApplicationStatusOverview(
        status=ApplicationStatus.DEPLOYING,
        deployments={"Shop": DeploymentStatusOverview(status=status, message=message)},
    )


def test_the_summary_names_everything_to_go_on_with() -> None:
    told = Told()
    told.clock.now += 0.25

    told.report.serving(record(), (spec("/shop", "/docs"),), is_reload=False, is_left=False)

    assert told.text.splitlines() == [
        "shop:app serves, ready in 0.25 s",
        "  application    default: Shop (1 replica), Price (2 replicas)",
        "  URL            http://127.0.0.1:8000/shop",
        "  documentation  http://127.0.0.1:8000/shop/docs",
        "  instance       i-1",
        "  stop with      Ctrl-C",
    ]


def test_what_is_left_behind_names_the_command_that_ends_it() -> None:
    told = Told()

    told.report.serving(record(), (spec(),), is_reload=False, is_left=True)

    assert "stop with    trygon shutdown --instance i-1" in told.text


def test_an_application_without_http_says_so() -> None:
    told = Told()

    told.report.serving(record(port=0), (spec(),), is_reload=False, is_left=False)

    assert "URL          none" in told.text


def test_the_first_failure_of_a_deployment_is_told_once() -> None:
    told = Told()
    told.report.starting((spec(),))
    text = f"0 of 1 replicas are ready; a replica failed to start, 2 more ...; the last error was:\n{TRACE}"

    told.report.progress(progress("0 of 1 replicas are ready"))
    told.report.progress(progress(text))
    told.report.progress(progress(text.replace("2 more", "1 more")))
    told.report.deploy_failed(
        f"application 'default' could not be deployed: deployment 'Shop' failed; the last error was:\n{TRACE}",
        is_waiting=False,
    )

    assert told.text.count(TRACE) == 1
    assert told.text.endswith("deployment 'Shop' failed; its first error is above\n")


def test_a_failure_that_nobody_told_comes_with_its_error() -> None:
    told = Told()

    told.report.deploy_failed(f"deployment 'Shop' failed; the last error was:\n{TRACE}", is_waiting=False)

    assert TRACE in told.text


def test_a_slow_start_gets_one_line_without_a_terminal() -> None:
    told = Told()
    told.report.starting((spec(),))
    told.report.progress(progress("0 of 1 replicas are ready"))

    told.report.tick()
    assert told.text == ""
    told.clock.now += 2.5
    told.report.tick()
    told.report.tick()

    assert told.text == "starting Shop 0/1\n"


def test_a_failed_build_shows_the_users_traceback_and_what_goes_on() -> None:
    told = Told()
    told.report.serving(record(), (spec(),), is_reload=False, is_left=False)

    told.report.changed(["shop.py"])
    told.report.build_failed(Outcome(error="it raised", traceback=TRACE), is_waiting=True, is_serving=True)

    assert told.text.endswith(
        f"{TRACE}\nerror: it raised\nthe old code serves on; waiting for a change of the files\n"
    )


@pytest.mark.parametrize(
    "host, url",
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("example.org", "http://example.org:80"),
    ],
)
def test_urls_can_be_clicked(host: str, url: str) -> None:
    assert base_url(record(host, 80)) == url
