"""Modules that are imported as they were when the application was built."""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from trygon.engine.code_snapshot import install_snapshot, read_snapshot
from trygon.spec.application import ModuleSource


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    """A folder on sys.path; what was imported from it is forgotten after the test."""
    before, path, finders = set(sys.modules), list(sys.path), list(sys.meta_path)
    folder = tmp_path / "code"
    folder.mkdir()
    sys.path.insert(0, str(folder))
    yield folder
    sys.path[:], sys.meta_path[:] = path, finders
    for name in set(sys.modules) - before:
        del sys.modules[name]
    importlib.invalidate_caches()


def snapshot(tmp_path: Path, *modules: ModuleSource) -> Path:
    data = msgspec.msgpack.encode(modules)
    path = tmp_path / hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    return path


def module(path: Path, name: str) -> ModuleSource:
    return ModuleSource(
        name=name, path=str(path), is_package=path.name == "__init__.py", source=path.read_bytes()
    )


def test_edited_and_deleted_files_do_not_change_what_is_imported(tmp_path: Path, code: Path) -> None:
    (code / "snap_one.py").write_text("import snap_pack.inner\nvalue = snap_pack.inner.value\n")
    pack = code / "snap_pack"
    pack.mkdir()
    (pack / "__init__.py").write_text("")
    (pack / "inner.py").write_text("value = 1\n")
    path = snapshot(
        tmp_path,
        module(code / "snap_one.py", "snap_one"),
        module(pack / "__init__.py", "snap_pack"),
        module(pack / "inner.py", "snap_pack.inner"),
    )
    (code / "snap_one.py").unlink()
    (pack / "inner.py").write_text("value = 2\n")
    (pack / "later.py").write_text("value = 3\n")

    install_snapshot(str(path))

    one = importlib.import_module("snap_one")
    assert 1 == one.value
    assert str(code / "snap_one.py") == one.__file__
    assert 3 == importlib.import_module("snap_pack.later").value, "not in the snapshot: from the files"


def test_a_traceback_shows_the_lines_that_run(tmp_path: Path, code: Path) -> None:
    file = code / "snap_fails.py"
    file.write_text("def fail():\n    raise ValueError('as it was built')\n")
    path = snapshot(tmp_path, module(file, "snap_fails"))
    file.write_text("# one\n# two\n# three\n")
    install_snapshot(str(path))

    with pytest.raises(ValueError, match="as it was built") as failed:
        importlib.import_module("snap_fails").fail()

    assert "raise ValueError('as it was built')" in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize("is_edited", [False, True])
def test_byte_code_is_cached_only_for_a_file_that_is_as_it_was(
    tmp_path: Path, code: Path, is_edited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = code / "snap_cached.py"
    file.write_text("value = 1\n")
    path = snapshot(tmp_path, module(file, "snap_cached"))
    if is_edited:
        file.write_text("value = 2\n")
    install_snapshot(str(path))

    assert 1 == importlib.import_module("snap_cached").value

    assert is_edited is not (code / "__pycache__").exists()


def test_a_lost_or_damaged_snapshot_is_told_and_the_files_are_used(
    tmp_path: Path, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code / "snap_lost.py").write_text("value = 1\n")
    path = snapshot(tmp_path, module(code / "snap_lost.py", "snap_lost"))
    path.write_bytes(path.read_bytes() + b"?")
    (code / "snap_lost.py").write_text("value = 2\n")

    install_snapshot(str(path))
    install_snapshot(str(tmp_path / "nowhere"))

    assert 2 == importlib.import_module("snap_lost").value
    told = capsys.readouterr().err
    assert 2 == told.count("modules are imported as their files are now")
    with pytest.raises(ValueError, match="does not fit its name"):
        read_snapshot(str(path))
