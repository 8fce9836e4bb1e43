"""Tells now and then that routers of the user's fail, however many requests they fail for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

__all__ = ["REPORT_PAUSE_S", "RouterTroubles"]

#: Between two reports, and how long a router must do well to count as well again.
REPORT_PAUSE_S = 5.0

logger = logging.getLogger("trygon.routing")


class RouterTroubles:
    """The troubles of the routers of one process.

    Args:
        loop: Where everything here runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        #: Takes application, deployment, requests since the last report (0: all is well again), and the reason.
        self.send: Callable[[str, str, int, str], None] = lambda *_: None
        #: Requests that were not reported yet, and why, by application and deployment, while there is trouble.
        self._counts: dict[tuple[str, str], tuple[int, str]] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}

    def count(self, app_name: str, deployment: str, reason: str) -> None:
        """Count one request that went by power of two choices."""
        key = (app_name, deployment)
        self._counts[key] = (self._counts.get(key, (0, ""))[0] + 1, reason)
        if key not in self._timers:
            self._report(key)

    def _report(self, key: tuple[str, str]) -> None:
        self._timers.pop(key, None)
        number, reason = self._counts.pop(key, (0, ""))
        if number:
            logger.warning(
                "the request router of deployment %r of application %r failed for %d requests, which went by power of "
                "two choices: %s",
                *(key[1], key[0], number, reason),
            )
            self._timers[key] = self._loop.call_later(REPORT_PAUSE_S, self._report, key)
        self.send(*key, number, reason)

    def close(self) -> None:
        """Report no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
