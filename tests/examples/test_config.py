"""The configuration file of the examples is served as its comments say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.command import Command, run

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples" / "config" / "serve.yaml"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the file from another folder; return the instance's URL."""
    # Tests before this one may have an instance of their own open.
    monkeypatch.setenv("TRYGON_INSTANCE", "config-example")
    command = Command("run", str(FILE), "--port", "0", cwd=tmp_path)
    yield command.wait_until_serving().removesuffix("/hello")
    command.close()


def test_words_come_from_args_and_the_tone_from_user_config(url: str) -> None:
    hello = httpx.get(f"{url}/hello", params={"name": "Ada"}).text
    moin = httpx.get(f"{url}/moin", params={"name": "Ada"}).text

    assert ("Hello, Ada!", "Moin, ADA!") == (hello, moin)


def test_the_file_is_what_runs(url: str, tmp_path: Path) -> None:
    planned = run("plan", str(FILE), cwd=tmp_path)

    assert (0, True) == (planned.returncode, "nothing to do" in planned.stdout), planned.stderr
