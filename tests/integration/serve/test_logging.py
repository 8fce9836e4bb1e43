"""The logging_config of the instance, an application and a deployment: the most specific one wins everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.serve.log_apps import Chatty, Own, Plain
from tests.waiting import wait_until
from trygon import serve
from trygon.serve.session import current_session


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Path]:
    """A folder that an instance copies its log lines to, as JSON; it is ended after the test."""
    folder = tmp_path / "copies"
    serve.start(
        http_options={"port": 0},
        logging_config={
            "encoding": "JSON",
            "logs_dir": str(folder),
            "additional_log_standard_attrs": ["levelno"],
        },
    )
    yield folder
    serve.shutdown()


def log_text(pattern: str) -> str:
    session = current_session()
    assert session is not None
    return "".join(path.read_text() for path in Path(session.instance.record.log_dir).glob(pattern))


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def wait_for(pattern: str, text: str) -> str:
    wait_until(lambda: text in log_text(pattern), f"{text!r} in {pattern}")
    return log_text(pattern)


def test_the_configuration_of_the_instance_reaches_replicas_and_ingress(copies: Path) -> None:
    serve.run(Plain.bind())
    answer = httpx.get(f"{serve.http_address()}/x", headers={"X-Request-ID": "mine"}, timeout=20)
    assert "plain" == answer.text

    own = [line for line in json_lines(wait_for("replica_*.log", "asked for")) if "asked" in line["message"]]
    (line,) = own
    assert ("mine", "default", "Plain", 20) == (
        line["request_id"],
        line["application"],
        line["deployment"],
        line["levelno"],
    )
    assert line["replica"]
    access = json_lines(wait_for("ingress_0.log", '"request_id": "mine"'))[-1]
    assert access["message"].startswith("GET / 200 ")
    wait_until(
        lambda: '"request_id": "mine"' in "".join(p.read_text() for p in copies.glob("proxy_*.log")),
        "the line of the request in the copy of the ingress's log",
    )
    assert "not shown" not in log_text("replica_*.log")
    copied = "".join(path.read_text() for path in copies.glob("replica_*.log"))
    assert "asked for /x" in copied


def test_a_deployment_overrides_the_instance(copies: Path) -> None:
    serve.run(Own.bind())
    assert "own" == httpx.get(f"{serve.http_address()}/y", timeout=20).text

    text = wait_for("replica_*.log", "debugged /y")

    assert [] == json_lines(text)
    assert "DEBUG " in text
    assert "GET / 200" not in text
    assert not list(copies.glob("replica_*.log")), "a more specific configuration counts whole"


@pytest.fixture
def quiet_instance() -> Iterator[None]:
    """An instance without an access log, ended after the test."""
    serve.start(http_options={"port": 0}, logging_config={"enable_access_log": False})
    yield
    serve.shutdown()


def test_an_application_may_want_an_access_log_where_the_instance_has_none(quiet_instance: None) -> None:
    serve.run(Plain.bind(), name="quiet", route_prefix="/quiet")
    serve.run(Plain.bind(), name="told", route_prefix="/told", logging_config={"enable_access_log": True})
    url = serve.http_address()
    assert ["plain", "plain"] == [httpx.get(f"{url}/{name}", timeout=20).text for name in ("quiet", "told")]
    assert 404 == httpx.get(f"{url}/nowhere", timeout=20).status_code
    assert "plain" == httpx.get(f"{url}/told/last", timeout=20).text

    wait_until(lambda: log_text("ingress_0.log").count("GET /told 200") == 2, "two lines of the ingress")

    assert "/quiet" not in log_text("ingress_0.log")
    assert "/nowhere" not in log_text("ingress_0.log")


def test_the_size_of_log_files_and_how_many_are_kept_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRYGON_ROTATION_MAX_BYTES", "2048")
    monkeypatch.setenv("TRYGON_ROTATION_BACKUP_COUNT", "1")
    serve.start(http_options={"port": 0})
    try:
        handle = serve.run(Chatty.bind())
        session = current_session()
        assert session is not None
        logs = Path(session.instance.record.log_dir)

        def is_rotated() -> bool:
            # A process looks at the size of its file at most once a second, or after a megabyte.
            handle.remote(1 << 20).result(timeout_s=20)
            return bool(list(logs.glob("replica_*.log.1")))

        wait_until(is_rotated, "the log file to be begun anew")
        wait_until(lambda: is_rotated() and not list(logs.glob("replica_*.log.2")), "only one to be kept")
    finally:
        serve.shutdown()
