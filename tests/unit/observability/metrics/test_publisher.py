"""When a process publishes: soon after a change, at most once a second, never while nothing changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from trygon.observability.metrics import Registry
from trygon.observability.metrics.pages import read_page
from trygon.observability.metrics.publisher import Publisher


class Loop:
    """Keeps the timer that was asked for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Any:
        self.timers.append((self.now + delay_s, function))
        return self

    def call_soon_threadsafe(self, function: Callable[[], None]) -> None:
        function()

    def cancel(self) -> None:
        self.timers.clear()

    def run_timer(self) -> float:
        self.now, function = self.timers.pop()
        function()
        return self.now


@pytest.fixture
def loop() -> Loop:
    return Loop()


def make(loop: Loop, folder: Path) -> tuple[Registry, Publisher]:
    registry = Registry()
    publisher = Publisher(
        cast("asyncio.AbstractEventLoop", loop), folder, "x", clock=lambda: (loop.now, 0.0), registry=registry
    )
    return registry, publisher


def published(folder: Path) -> Any:
    (page,) = folder.glob("x-*.page")
    return json.loads(read_page(page) or b"")["families"][0][-1]


def test_a_change_is_published_soon_the_next_a_second_later_and_then_nothing_runs(
    loop: Loop, tmp_path: Path
) -> None:
    registry, publisher = make(loop, tmp_path)
    cell = registry.counter("n", "", ()).cell()
    publisher.start()
    assert not loop.timers
    assert not list(tmp_path.iterdir())

    cell.value = 1
    registry.wake()
    first = loop.run_timer()
    cell.value = 2
    registry.wake()
    second = loop.run_timer()

    assert (pytest.approx(100.1), pytest.approx(101.1)) == (first, second)
    assert [[[], 2]] == published(tmp_path)
    assert not loop.timers
    publisher.close()


def test_the_last_change_is_published_at_the_end(loop: Loop, tmp_path: Path) -> None:
    registry, publisher = make(loop, tmp_path)
    publisher.start()
    registry.counter("n", "", ()).cell().value = 3
    registry.wake()

    publisher.close()
    publisher.close()

    assert [[[], 3]] == published(tmp_path)
    assert not loop.timers


def test_a_folder_that_is_gone_disturbs_nobody(loop: Loop, tmp_path: Path) -> None:
    registry, publisher = make(loop, tmp_path / "gone")
    publisher.start()
    registry.counter("n", "", ()).cell().value = 3
    registry.wake()

    loop.run_timer()
    publisher.close()

    assert not (tmp_path / "gone").exists()
