"""The logging_config of the instance, an application and a deployment: the most specific one wins everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.serve.log_apps import Own, Plain
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
