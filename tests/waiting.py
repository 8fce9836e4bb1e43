"""Waiting in tests that use real processes: for an event, with a deadline, never for a guess of a time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.01


def wait_until(condition: Callable[[], T], what: str, *, timeout_s: float = 10.0) -> T:
    """Return the first true value of `condition`, asked again and again.

    Args:
        condition: Asks the outside world; an OSError counts as "not yet".
        what: What is waited for, as it reads after "waited for".
        timeout_s: Seconds until the test fails; its report shows the logs of the instance.
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        last = _ask(condition)
        if last and not isinstance(last, OSError):
            return last
        if time.monotonic() >= deadline:
            raise AssertionError(_late(what, timeout_s, last))
        pause.wait(POLL_S)


async def wait_until_async(
    condition: Callable[[], T | Awaitable[T]], what: str, *, timeout_s: float = 10.0
) -> T:
    """Do as `wait_until` does, for conditions that may be coroutines, without blocking the loop."""
    last: T | OSError | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                answer = _ask(condition)
                try:
                    last = await answer if isinstance(answer, Awaitable) else answer
                except OSError as error:
                    last = error
                if last and not isinstance(last, OSError):
                    return last
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(_late(what, timeout_s, last)) from None


def _ask(condition: Callable[[], T]) -> T | OSError:
    try:
        return condition()
    except OSError as error:
        return error


def _late(what: str, timeout_s: float, last: object) -> str:
    return f"waited {timeout_s:g} s for {what}; the last answer was {last!r}"
