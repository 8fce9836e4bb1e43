"""Which modules are an application's own."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from trygon.client.snapshot import own_modules
from trygon.spec.validation import notices


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module that was imported from a folder of the user's."""
    file = tmp_path / "own_module_of_a_test.py"
    file.write_text("value = 1\n")
    module = types.ModuleType("own_module_of_a_test")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "own_module_of_a_test", module)
    return file


def test_modules_of_the_user_are_taken_with_their_source_and_nothing_that_is_installed(own: Path) -> None:
    found = {module.name: module for module in own_modules()}

    assert b"value = 1\n" == found["own_module_of_a_test"].source
    assert str(own) == found["own_module_of_a_test"].path
    assert not {"__main__", "json", "pytest", "trygon", "trygon.errors"} & found.keys()


def test_a_file_that_is_gone_is_left_out(own: Path) -> None:
    own.unlink()

    assert "own_module_of_a_test" not in {module.name for module in own_modules()}


def test_beyond_the_limit_there_is_no_snapshot_but_a_warning(own: Path) -> None:
    notices.clear()

    with pytest.warns(UserWarning, match="no snapshot of its code is kept"):
        found = own_modules(limit_bytes=5)

    assert () == found
