"""One instance for all tests of the examples, and a way to run one application at a time on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from examples import converter
from tests.examples.pages import free_port
from trygon import serve
from trygon.serve import Application
from trygon.serve.handle import DeploymentHandle

RunApp = Callable[..., DeploymentHandle]


@pytest.fixture(scope="session")
def http_url(isolated_home: Path) -> Iterator[str]:
    """Start an instance on a free port in the tests' own home, and stop it at the end."""
    port = free_port()
    serve.start(http_options=serve.HTTPOptions(host="127.0.0.1", port=port))
    url = f"http://127.0.0.1:{port}"
    # The ingress starts with the first application: here, so that no test is blamed for leaving it behind.
    serve.run(converter.app, name="first")
    assert httpx.get(url).is_success
    serve.delete("first")
    yield url
    serve.shutdown()


@pytest.fixture
def client(http_url: str) -> Iterator[httpx.Client]:
    """Give an HTTP client of the instance."""
    with httpx.Client(base_url=http_url, timeout=30) as client:
        yield client


@pytest.fixture
def run_app(http_url: str) -> Iterator[RunApp]:
    """Run applications for one test, and delete them after it."""
    names: list[str] = []

    def run(app: Application, name: str = "default", route_prefix: str = "/") -> DeploymentHandle:
        names.append(name)
        return serve.run(app, name=name, route_prefix=route_prefix)

    yield run
    for name in names:
        serve.delete(name)


@pytest.fixture(scope="session")
def wine_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train small wine models once, on a small sample."""
    train = pytest.importorskip("examples.wine.train")
    data = pytest.importorskip("examples.wine.data")
    folder: Path = tmp_path_factory.mktemp("wine") / "wine-models"
    learn, held_out = train.split(data.sample_wines(count=400), seed=7)
    train.save_best(train.train(learn, held_out, trees=10), folder)
    return folder
