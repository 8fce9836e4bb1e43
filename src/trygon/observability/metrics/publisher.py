"""Publishes this process's numbers on its page, at most once a second and only after a change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from trygon.observability.metrics.content import Content, encode
from trygon.observability.metrics.gathering import fold_if_many
from trygon.observability.metrics.pages import PAGE_SUFFIX, Page
from trygon.observability.metrics.registry import REGISTRY, Registry
from trygon.observability.metrics.traffic import Total, TrafficLog

__all__ = ["PERIOD_S", "Publisher"]

logger = logging.getLogger("trygon.metrics")

#: Between two publications.
PERIOD_S: Final = 1.0
#: After a pause the first one comes soon, but with what came along.
_FIRST_S: Final = 0.1


class Publisher:
    """The page of one process; used on the thread of `loop`.

    Args:
        loop: Where the timer runs.
        folder: The runtime directory of the instance.
        role: Begins the name of the page.
        clock: Returns (monotonic, wall-clock) seconds.
        registry: What is published.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        folder: Path,
        role: str,
        *,
        clock: Callable[[], tuple[float, float]],
        registry: Registry = REGISTRY,
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._role = role
        self._clock = clock
        self._registry = registry
        #: Gives the counts since the beginning, for rates.
        self.traffic: Callable[[], Mapping[tuple[str, str], Total]] = dict
        self._log = TrafficLog()
        self._page: Page | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._published = float("-inf")
        self._has_failed = False
        self._is_closed = False

    def start(self) -> None:
        """Publish changes from now on, and what has changed before."""
        _publishers.add(self)
        self._registry.on_change = self._on_change
        if not self._registry.is_quiet:
            self._arm()

    def _on_change(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._arm)

    def _arm(self) -> None:
        if self._timer is None and not self._is_closed:
            passed_s = self._clock()[0] - self._published
            self._timer = self._loop.call_later(max(_FIRST_S, PERIOD_S - passed_s), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.publish()

    def publish(self) -> None:
        """Publish now; a failure is logged once, since serving matters more."""
        now, wall = self._clock()
        self._published = now
        # First: a change from here on, by whatever thread, asks for the next publication.
        self._registry.is_quiet = True
        try:
            if self._page is None:
                fold_if_many(self._folder, wall)
                name = f"{self._role}-{os.getpid()}-{os.urandom(4).hex()}{PAGE_SUFFIX}"
                self._page = Page(self._folder / name)
            families = self._registry.snapshot()
            slots = self._log.update(now, self.traffic())
            self._page.write(encode(Content(families, slots, self._registry.latency_bounds)))
        except (OSError, ValueError) as error:
            if not self._has_failed and self._folder.is_dir():
                self._has_failed = True
                logger.warning("metrics cannot be published in %s: %s", self._folder, error)

    def close(self) -> None:
        """Publish a last time."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._timer is not None or not self._registry.is_quiet:
            self.publish()
        if self._registry.on_change == self._on_change:
            self._registry.on_change = _ignore
        if self._page is not None:
            self._page.close()

    def leave_to_parent(self) -> None:
        """Let go of the page in a fork, or its lock would outlive the parent."""
        self._is_closed = True
        if self._page is not None:
            self._page.close()


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _leave_all_in_child() -> None:
    for publisher in list(_publishers):
        publisher.leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_in_child)


def _ignore() -> None:
    """Hear of changes after the last publication."""
