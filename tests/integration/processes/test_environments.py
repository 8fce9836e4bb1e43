"""Package environments: built once, shared, never half, ended with whoever waits, and removed when nobody needs them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.wheels import make_wheel
from trygon.client.environments import EnvironmentCache, Preparation
from trygon.client.requirements import complete_packages
from trygon.errors import DeployError
from trygon.processes.environment_build import collect
from trygon.spec.packages import PackageEnvironment

#: A project whose build says that it has begun, and then never ends.
HANGING_SETUP = """
import os, pathlib, time
pathlib.Path({mark!r}).write_text(str(os.getpid()))
time.sleep(3600)
"""


@pytest.fixture
def cache(tmp_path: Path) -> EnvironmentCache:
    """An empty cache."""
    (tmp_path / "home").mkdir(mode=0o700)
    return EnvironmentCache(tmp_path / "home" / "environments")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with two versions of `colours`, and `paint`, which wants the first."""
    for version in ("1.0", "2.0"):
        make_wheel(tmp_path / "wheels", "colours", version)
    make_wheel(tmp_path / "wheels", "paint", "1.0", requires=("colours<2",))
    return tmp_path / "wheels"


def environment(folder: Path, *lines: str) -> PackageEnvironment:
    given = PackageEnvironment(requirements=("--no-index", f"--find-links {folder}", *lines))
    return complete_packages(given, str(folder))


def said_in(cache: EnvironmentCache, packages: PackageEnvironment, code: str) -> str:
    return subprocess.run(
        [cache.python_of(packages), "-P", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def hanging_project(folder: Path) -> Path:
    """Write a project that hangs while it is built; return the file in which it says its pid."""
    mark = folder / "begun"
    project = folder / "hanging"
    project.mkdir()
    # A build backend in the project itself needs nothing to be downloaded.
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (project / "backend.py").write_text(HANGING_SETUP.format(mark=str(mark)))
    return mark


def pid_in(mark: Path) -> int:
    wait_until(lambda: mark.exists() and mark.read_text(), "the build of the project begins", timeout_s=20)
    return int(mark.read_text())


def is_gone(pid: int) -> bool:
    try:
        # A zombie is one whose parent, in a test's container, has not looked yet.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_an_environment_has_its_packages_and_those_of_trygon(cache: EnvironmentCache, wheels: Path) -> None:
    packages = environment(wheels, "paint")
    told: list[str] = []

    Preparation(told.append, cache=cache).run([packages, packages])

    assert "1.0" == said_in(cache, packages, "import paint, colours; print(colours.version)")
    assert "msgspec" == said_in(cache, packages, "import trygon.serve, msgspec; print(msgspec.__name__)")
    assert "building environment (1 package) ..." == told[0]
    assert told[1].startswith("the environment (1 package) is ready after ")
    assert 2 == len(told)


def test_pip_check_options_and_a_version_of_pip_are_honoured(cache: EnvironmentCache, wheels: Path) -> None:
    lines = ("--no-index", f"--find-links {wheels}", "paint")
    given = PackageEnvironment(requirements=lines, pip_install_options=("--no-deps",), pip_check=True)

    with pytest.raises(DeployError, match=r"paint 1\.0 requires colours, which is not installed"):
        Preparation(print, cache=cache).run([complete_packages(given, str(wheels))])


@pytest.mark.parametrize(
    "lines, told",
    [
        (("colors",), "No matching distribution found for colors\ncheck the spelling"),
        (("paint", "colours==2.0"), "exclude one another"),
        (("colours=1",), "write it as pip wants it"),
    ],
)
def test_a_failure_is_told_in_pip_s_words_and_leaves_nothing(
    lines: tuple[str, ...], told: str, cache: EnvironmentCache, wheels: Path
) -> None:
    packages = environment(wheels, *lines)

    with pytest.raises(DeployError) as caught:
        Preparation(print, cache=cache).run([packages])

    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) < 16
    assert "Traceback" not in str(caught.value)
    assert [] == cache.used()


def test_packages_that_break_trygon_s_own_are_told_before_the_deploy(
    cache: EnvironmentCache, wheels: Path
) -> None:
    make_wheel(wheels, "msgspec", "0.0.1")

    with pytest.raises(DeployError, match=r"Trygon cannot run beside these packages:\n  .*msgspec") as caught:
        Preparation(print, cache=cache).run([environment(wheels, "msgspec==0.0.1")])

    assert "Traceback" not in str(caught.value)


def test_two_builders_of_one_environment_build_it_once(cache: EnvironmentCache, wheels: Path) -> None:
    packages = environment(wheels, "colours==2.0")
    failures: list[Exception] = []

    def build() -> None:
        try:
            Preparation(lambda _: None, cache=cache).run([packages])
        except DeployError as error:
            failures.append(error)

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failures
    assert "2.0" == said_in(cache, packages, "import colours; print(colours.version)")
    assert 1 == cache.log_of(packages).read_text().count("Successfully installed")


def test_a_torn_build_is_no_environment_and_is_built_anew(cache: EnvironmentCache, wheels: Path) -> None:
    packages = environment(wheels, "colours")
    torn = cache.path_of(packages) / "lib"
    torn.mkdir(parents=True)
    cache.folder.parent.chmod(0o700)
    cache.folder.chmod(0o700)
    (torn / "half").write_text("")

    assert cache.enter(packages) is None
    Preparation(print, cache=cache).run([packages])

    assert not (torn / "half").exists()
    assert "2.0" == said_in(cache, packages, "import colours; print(colours.version)")


def test_cancelling_ends_pip_and_everything_it_started(cache: EnvironmentCache, tmp_path: Path) -> None:
    mark = hanging_project(tmp_path)
    preparation = Preparation(lambda _: None, cache=cache)
    packages = environment(tmp_path, "./hanging")
    failures: list[DeployError] = []

    def build() -> None:
        try:
            preparation.run([packages])
        except DeployError as error:
            failures.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    pid = pid_in(mark)
    preparation.cancel()
    thread.join(10)

    assert "was ended" in str(failures[0])
    wait_until(lambda: is_gone(pid), "the build of the project is gone")
    assert not cache.is_ready(packages)


def test_a_build_that_takes_too_long_is_ended_and_told(cache: EnvironmentCache, tmp_path: Path) -> None:
    hanging_project(tmp_path)
    packages = environment(tmp_path, "./hanging")

    with pytest.raises(DeployError, match="was not built within 2 s and the build was ended"):
        Preparation(print, cache=cache, timeout_s=2).run([packages])

    assert [] == cache.used()


def test_a_local_file_that_changed_since_is_not_taken_for_the_old_one(
    cache: EnvironmentCache, wheels: Path
) -> None:
    wheel = make_wheel(wheels, "local", "1.0")
    packages = environment(wheels, str(wheel))
    make_wheel(wheels, "local", "1.0", source="changed = True\n")

    with pytest.raises(DeployError, match="is not what it was when the application was deployed"):
        Preparation(print, cache=cache).run([packages])


def fake(cache: EnvironmentCache, name: str, used: int) -> Path:
    path = cache.folder / f"{name}-0"
    path.mkdir(parents=True)
    (path / "trygon-ready").touch()
    os.utime(path / "trygon-ready", (used, used))
    return path


def test_the_longest_unused_are_removed_but_never_one_in_use_or_in_a_history(cache: EnvironmentCache) -> None:
    in_history, in_use, old, older, new = (
        fake(cache, name, used) for used, name in enumerate(["history", "use", "old", "older", "new"])
    )
    torn = cache.folder / "torn-0"
    torn.mkdir()
    state = cache.folder.parent / "instances" / "one"
    state.mkdir(parents=True)
    (state / "state").write_bytes(b"\x00history\x00")
    held = cache.lock(in_use, fcntl.LOCK_SH)
    assert held is not None

    removed = collect(cache, kept=1)
    os.close(held)
    then = collect(cache, kept=1)

    assert {old, older, torn} == set(removed)
    assert [in_use] == then
    assert [new, in_history] == cache.used()


def test_only_the_newest_logs_of_failed_builds_are_kept(cache: EnvironmentCache) -> None:
    cache.folder.mkdir()
    for number in range(4):
        path = cache.folder / f"{number}-0.log"
        path.touch()
        os.utime(path, (number, number))

    collect(cache, kept=2)

    assert {"2-0.log", "3-0.log"} == {path.name for path in cache.folder.glob("*.log")}
