"""Deployments that log."""

from __future__ import annotations

import logging
from typing import Any

from trygon import serve

logger = logging.getLogger("ray.serve")


@serve.deployment
class Plain:
    """Logs as the instance says."""

    def __call__(self, request: Any) -> str:
        logger.info("asked for %s", request.url.path)
        logger.debug("not shown")
        return "plain"


@serve.deployment(logging_config={"encoding": "TEXT", "log_level": "DEBUG", "enable_access_log": False})
class Own:
    """Logs as it says itself."""

    def __call__(self, request: Any) -> str:
        logger.debug("debugged %s", request.url.path)
        return "own"


@serve.deployment
class Chatty:
    """Prints as much as it is told to."""

    def __call__(self, count: int) -> None:
        print("x" * count)
