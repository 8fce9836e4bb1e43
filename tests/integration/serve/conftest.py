"""One instance for all tests of a file, and a way to run an application for one test only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from trygon import serve
from trygon.serve import Application
from trygon.serve.handle import DeploymentHandle

RunApp = Callable[..., DeploymentHandle]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Start an instance on a free port, and end it after the file's last test."""
    serve.start(http_options={"port": 0})
    yield serve.http_address()
    serve.shutdown()


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """Give an HTTP client of the instance."""
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture
def run_app(url: str) -> Iterator[RunApp]:
    """Run applications for one test, and delete them after it."""
    names: list[str] = []

    def run(app: Application, name: str = "default", route_prefix: str | None = "/") -> DeploymentHandle:
        names.append(name)
        return serve.run(app, name=name, route_prefix=route_prefix)

    yield run
    for name in names:
        serve.delete(name)
