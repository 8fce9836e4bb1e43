"""The developer scripts find a Python or say what is missing, and install once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VENV = Path(__file__).resolve().parents[3] / "scripts" / "_venv"


def stub(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the script in a project of its own, and a PATH that holds only what it needs."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(VENV, tmp_path / "scripts" / "_venv")
    (tmp_path / "pyproject.toml").write_text("one")
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "cat", "dirname", "rm"):
        found = shutil.which(tool)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def use_venv(checkout: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(checkout / "bin" / "bash"),
            "-c",
            f'source "{checkout}/scripts/_venv"; use_venv check test; echo "$python"',
        ],
        env={"PATH": str(checkout / "bin"), **environ},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_an_old_python_is_refused_with_what_to_install(checkout: Path) -> None:
    stub(checkout / "bin" / "python3", 'if [ "$1" = --version ]; then echo Python 3.8.1; else exit 1; fi')

    result = use_venv(checkout)

    assert 1 == result.returncode
    assert "needs Python 3.11 or newer; found Python 3.8.1" in result.stderr
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_said(checkout: Path) -> None:
    result = use_venv(checkout)

    assert 1 == result.returncode
    assert "needs Python 3.11 or newer" in result.stderr


def test_the_active_environment_is_used_and_installed_into_only_when_something_changed(
    checkout: Path,
) -> None:
    venv = checkout / "active"
    log = checkout / "pip.log"
    # Answers as the running Python, and notes installations instead of making them.
    stub(
        venv / "bin" / "python",
        f'if [ "$1 $2" = "-m pip" ]; then echo "${{@: -1}}" >> {log}; else exec {sys.executable} "$@"; fi',
    )

    for text in ("one", "one", "two"):
        (checkout / "pyproject.toml").write_text(text)
        result = use_venv(checkout, VIRTUAL_ENV=str(venv))
        assert f"{venv}/bin/python\n" == result.stdout, result.stderr

    assert [f"{checkout}[check,test]"] * 2 == log.read_text().splitlines()
    assert not (checkout / ".venv").exists()


def test_a_failed_installation_is_tried_again(checkout: Path) -> None:
    venv = checkout / "active"
    stub(
        venv / "bin" / "python",
        f'if [ "$1 $2" = "-m pip" ]; then exit 1; else exec {sys.executable} "$@"; fi',
    )

    assert 1 == use_venv(checkout, VIRTUAL_ENV=str(venv)).returncode
    assert [] == [name for name in os.listdir(venv) if name.startswith(".trygon")]
