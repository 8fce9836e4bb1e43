"""The modules below folders become sources with the names that they are imported by."""

from __future__ import annotations

from pathlib import Path

import pytest

from trygon.client.module_tree import importable_from, modules_below


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}")


def test_packages_modules_and_folders_of_modules_are_found_by_name(tmp_path: Path) -> None:
    write(tmp_path / "lib", "pkg/__init__.py", "pkg/inner/__init__.py", "pkg/inner/deep.py", "pkg/data.txt")
    write(tmp_path / "code", "one.py", "space/two.py", ".git/no.py", "not-a-name/no.py", "env/lib/no.py")
    write(tmp_path / "code" / "env", "pyvenv.cfg")
    write(tmp_path, "alone.py")
    paths = tuple(str(tmp_path / name) for name in ("lib/pkg", "code", "alone.py"))

    found = {module.name: module for module in modules_below(paths)}

    assert {"pkg", "pkg.inner", "pkg.inner.deep", "one", "space.two", "alone"} == set(found)
    assert found["pkg"].is_package
    assert not found["pkg.inner.deep"].is_package
    assert b"# pkg/inner/deep.py" == found["pkg.inner.deep"].source
    assert [str(tmp_path / "lib"), str(tmp_path / "code"), str(tmp_path)] == [*map(importable_from, paths)]


def test_the_first_of_one_name_counts(tmp_path: Path) -> None:
    write(tmp_path / "a", "one.py")
    write(tmp_path / "b", "one.py", "two.py")

    found = modules_below((str(tmp_path / "a"), str(tmp_path / "b")))

    assert [str(tmp_path / "a" / "one.py"), str(tmp_path / "b" / "two.py")] == [m.path for m in found]


def test_too_much_code_is_no_snapshot_and_told(tmp_path: Path) -> None:
    write(tmp_path, "one.py", "two.py")

    with pytest.warns(UserWarning, match="more code below it than a snapshot takes"):
        assert () == modules_below((str(tmp_path),), limit_bytes=10)
