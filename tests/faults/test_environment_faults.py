"""Whoever waits for a package environment may be killed: nothing goes on, and the next one builds it whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.wheels import make_wheel
from trygon.client.environments import EnvironmentCache
from trygon.client.requirements import complete_packages
from trygon.spec.packages import PackageEnvironment

#: Blocks in the gate, a pipe; a build backend without needs.
BACKEND = """
import os, pathlib, shutil

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    pathlib.Path({begun!r}).write_text(str(os.getpid()))
    pathlib.Path({gate!r}).read_text()
    wheel = pathlib.Path({wheel!r})
    shutil.copy(wheel, wheel_directory)
    return wheel.name
"""
WAITER = """
import json, pathlib, sys
from trygon.client.environments import EnvironmentCache, Preparation
from trygon.client.requirements import complete_packages
from trygon.spec.packages import PackageEnvironment

lines, folder, cache = json.loads(sys.argv[1])
packages = complete_packages(PackageEnvironment(requirements=tuple(lines)), folder)
Preparation(print, cache=EnvironmentCache(pathlib.Path(cache))).run([packages])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose build waits for its gate."""
    project = tmp_path / "gated"
    project.mkdir()
    (tmp_path / "home").mkdir(mode=0o700)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    wheel = make_wheel(tmp_path / "made", "colours", "1.0")
    text = BACKEND.format(begun=str(tmp_path / "begun"), gate=str(tmp_path / "gate"), wheel=str(wheel))
    (project / "backend.py").write_text(text)
    os.mkfifo(tmp_path / "gate")
    return tmp_path


def start_waiter(folder: Path) -> subprocess.Popen[str]:
    order = json.dumps([["--no-index", "./gated"], str(folder), str(folder / "home" / "environments")])
    return subprocess.Popen([sys.executable, "-c", WAITER, order], stdout=subprocess.PIPE, text=True)


def pid_of_build(folder: Path) -> int:
    begun = folder / "begun"
    wait_until(lambda: begun.exists() and begun.read_text(), "the project's build begins", timeout_s=30)
    pid = int(begun.read_text())
    begun.unlink()
    return pid


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.linux
def test_a_waiter_that_is_killed_takes_pip_with_it_and_the_next_builds_all(folder: Path) -> None:
    packages = complete_packages(PackageEnvironment(requirements=("--no-index", "./gated")), str(folder))
    cache = EnvironmentCache(folder / "home" / "environments")
    with start_waiter(folder) as first:
        pid = pid_of_build(folder)
        first.send_signal(signal.SIGKILL)
    wait_until(lambda: is_gone(pid), "the build that nobody waits for is gone")
    torn = cache.path_of(packages).exists() and not cache.is_ready(packages)

    with start_waiter(folder) as second:
        pid_of_build(folder)
        (folder / "gate").write_text("open")
        code = second.wait(30)

    assert torn
    assert 0 == code
    said = subprocess.run(
        [cache.python_of(packages), "-P", "-c", "import colours; print(colours.version)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "1.0" == said.stdout.strip()


@pytest.mark.linux
def test_two_waiters_of_which_the_builder_s_is_killed_end_with_one_environment(folder: Path) -> None:
    with start_waiter(folder) as first:
        pid_of_build(folder)
        with start_waiter(folder) as second:
            first.send_signal(signal.SIGKILL)
            # The second had to wait for the lock, and now builds by itself.
            pid_of_build(folder)
            (folder / "gate").write_text("open")
            code = second.wait(30)

    assert 0 == code
