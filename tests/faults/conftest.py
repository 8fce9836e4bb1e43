"""One instance for the faults of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trygon import serve


@pytest.fixture
def url() -> Iterator[str]:
    """Start an instance for one test: faults are not shared."""
    serve.start(http_options={"port": 0})
    yield serve.http_address()
    serve.shutdown()
