"""Every test of the HTTP front runs on both loops."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Name the loop for anyio's pytest plugin."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}
