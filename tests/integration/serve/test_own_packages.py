"""Packages, modules and folders that a deployment asks for in the code, deployed by `serve.run`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wheels import make_wheel
from trygon import serve
from trygon.serve.handle import DeploymentHandle


@serve.deployment
class Painter:
    def __call__(self) -> tuple[str, str]:
        import colours  # type: ignore[import-not-found]
        import lamps  # type: ignore[import-not-found]

        return f"{colours.version} {lamps.COLOUR}", os.getcwd()


def env_of(folder: Path, *packages: str) -> dict[str, object]:
    return {
        "pip": ["--no-index", f"--find-links {folder}", *packages],
        "py_modules": [str(folder / "lib")],
        "working_dir": str(folder),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a wheel, and with a module."""
    make_wheel(tmp_path, "colours", "1.0")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "lamps.py").write_text("COLOUR = 'red'\n")
    return tmp_path


def test_a_deployment_runs_with_what_its_runtime_env_says(
    folder: Path, run_app: Callable[..., DeploymentHandle], capfd: pytest.CaptureFixture[str]
) -> None:
    painter = Painter.options(ray_actor_options={"runtime_env": env_of(folder, "colours")})

    handle = run_app(painter.bind())

    assert ("1.0 red", str(folder)) == handle.remote().result(timeout_s=20)
    assert "building environment (1 package) ..." in capfd.readouterr().err


def test_packages_that_cannot_be_installed_refuse_the_deploy_and_leave_what_runs(
    folder: Path, run_app: Callable[..., DeploymentHandle]
) -> None:
    painter = Painter.options(ray_actor_options={"runtime_env": env_of(folder, "colours")})
    handle = run_app(painter.bind())

    with pytest.raises(RuntimeError, match="No matching distribution found for colors"):
        run_app(Painter.options(ray_actor_options={"runtime_env": env_of(folder, "colors")}).bind())

    assert "1.0 red" == handle.remote().result(timeout_s=20)[0]
    assert "RUNNING" == serve.status().applications["default"].status


def test_a_folder_that_is_not_there_is_named_with_its_deployment(
    tmp_path: Path, run_app: Callable[..., DeploymentHandle]
) -> None:
    missing = {"py_modules": [str(tmp_path / "none")]}

    with pytest.raises(RuntimeError, match=r"deployment 'Painter': .*none' is not there"):
        run_app(Painter.options(ray_actor_options={"runtime_env": missing}).bind())
