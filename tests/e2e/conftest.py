"""Applications to run, and commands that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.command import Command

HELLO = """
import logging
from trygon import serve

logger = logging.getLogger("ray.serve")


@serve.deployment
class Hello:
    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting
        print("constructed")

    async def __call__(self, request) -> str:
        print("printed", request.url.path)
        logger.info("logged")
        return self.greeting


app = Hello.bind()


def build(args):
    return Hello.bind(args["greeting"])
"""

SLOW = """
import time
from trygon import serve


@serve.deployment
class Slow:
    def __init__(self) -> None:
        time.sleep(60)

    def __call__(self, request) -> str:
        return "never"


app = Slow.bind()


@serve.deployment
class Busy:
    def __call__(self, request) -> str:
        print("begun")
        time.sleep(60)
        return "late"


busy = Busy.bind()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `hello.py` and `slow.py`, to type commands in."""
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


@pytest.fixture
def command(folder: Path) -> Iterator[Callable[..., Command]]:
    """Start commands in the folder; they are ended with the test."""
    started: list[Command] = []

    def start(*arguments: str, at_terminal: bool = False, env: dict[str, str] | None = None) -> Command:
        started.append(Command(*arguments, cwd=folder, at_terminal=at_terminal, env=env))
        return started[-1]

    yield start
    for one in started:
        one.close()
