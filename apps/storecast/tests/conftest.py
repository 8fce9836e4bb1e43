"""What every test of storecast gets: a Trygon home of its own, and a deadline."""

from __future__ import annotations

import pytest

from tests.conftest import isolated_home, pytest_runtest_makereport

__all__ = ["isolated_home", "pytest_runtest_makereport"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test a deadline."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120))
