"""Each test hears every notice anew."""

from __future__ import annotations

import pytest

from trygon.spec.validation import notices


@pytest.fixture(autouse=True)
def fresh_notices() -> None:
    notices.clear()
