"""What every test gets: a home of its own, a deadline, logs in its report; tests with processes may leak nothing."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    from hypothesis import settings
except ModuleNotFoundError:  # scripts/check runs the architecture tests without the test packages
    pass
else:
    settings.register_profile("trygon", deadline=None, print_blob=True)
    settings.load_profile("trygon")

TESTS = Path(__file__).resolve().parent

#: Seconds a test may take, by folder. Generous: a loaded two-core machine is the common case.
DEADLINES_S = {
    "architecture": 60,
    "unit": 30,
    "contract": 60,
    "integration": 60,
    "faults": 120,
    "e2e": 120,
    "examples": 120,
}

LEAK_CHECKED = ("contract", "integration", "faults", "e2e", "examples")
LEAK_DEADLINE_S = 5.0

LOG_LINES = 40
_started = pytest.StashKey[float]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its folder's deadline, and skip what this machine cannot run, saying why."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(DEADLINES_S.get(_folder(item), 60)))
        if item.get_closest_marker("linux") and sys.platform != "linux":
            item.add_marker(pytest.mark.skip(reason="needs Linux"))
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        for marker in item.iter_markers("tool"):
            if shutil.which(marker.args[0]) is None:
                item.add_marker(pytest.mark.skip(reason=f"needs the program {marker.args[0]}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the ends of the instance's logs below a failure."""
    report = yield
    if call.when == "setup":
        item.stash[_started] = call.start
    if report.failed:
        report.sections += _log_sections(since=item.stash.get(_started, call.start))
    return report


@pytest.fixture(scope="session", autouse=True)
def isolated_home() -> Iterator[Path]:
    """Give the whole run its own TRYGON_HOME, sockets and temporary folder, on a short path.

    No test joins, or leaves anything in, an instance of the developer's own.
    """
    # /tmp, not $TMPDIR: Unix socket paths are limited to 104 bytes, and macOS has a long one.
    root = Path(tempfile.mkdtemp(prefix="tg-", dir="/tmp"))
    # Folders of failed tests stay where pytest keeps them, for looking at.
    given = {
        "PYTEST_DEBUG_TEMPROOT": os.environ.get("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir()),
        "TMPDIR": str(root / "tmp"),
        "TRYGON_HOME": str(root / "home"),
        "TRYGON_RUNTIME_DIR": str(root / "run"),
    }
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("TRYGON_", "RAY_SERVE_")):
            del os.environ[name]
    os.environ.update(given)
    tempfile.tempdir = None
    for name in ("tmp", "home", "run"):
        (root / name).mkdir(mode=0o700)

    yield root

    left = _processes_left(given["TRYGON_HOME"])
    os.environ.clear()
    os.environ.update(before)
    tempfile.tempdir = None
    shutil.rmtree(root, ignore_errors=True)
    assert not left, "processes left at the end of the run (now killed):\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, isolated_home: Path) -> Iterator[None]:
    """Fail a test of real parts that leaves a process, thread, socket or temporary folder behind."""
    if _folder(request.node) not in LEAK_CHECKED:
        yield
        return
    from tests import leaks

    home = str(isolated_home / "home")
    before = leaks.Footprint.take(home)

    yield

    deadline = time.monotonic() + LEAK_DEADLINE_S
    pause = threading.Event()
    while grown := leaks.Footprint.take(home).grown_since(before):
        if time.monotonic() > deadline:
            if not before.processes:
                leaks.end(home)
            lines = [f"  {kind}: {name}" for kind, names in grown.items() for name in names]
            pytest.fail("the test left behind:\n" + "\n".join(lines), pytrace=False)
        pause.wait(0.02)


@pytest.fixture
def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def short_path(isolated_home: Path) -> Iterator[Path]:
    """Give a folder whose path is short enough for Unix sockets; `tmp_path` often is not."""
    folder = Path(tempfile.mkdtemp(prefix="s", dir=isolated_home))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _folder(item: pytest.Item) -> str:
    """Return the folder below tests/ that a test lives in."""
    try:
        return item.path.relative_to(TESTS).parts[0]
    except ValueError:
        return ""


def _log_sections(since: float) -> list[tuple[str, str]]:
    """Return the ends of log files that were written since a time."""
    home = Path(os.environ.get("TRYGON_HOME", "/nonexistent"))
    sections = []
    for path in sorted(home.rglob("*.log")):
        try:
            if path.stat().st_mtime >= since - 1:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
                sections.append((f"log {path.relative_to(home)}", "\n".join(lines)))
        except OSError:
            continue
    return sections


def _processes_left(home: str) -> list[str]:
    """Kill our processes that outlived the last test; return what they were."""
    if "tests.leaks" not in sys.modules:
        return []
    from tests import leaks

    deadline = time.monotonic() + LEAK_DEADLINE_S
    pause = threading.Event()
    while left := sorted(leaks.Footprint.take(home).processes):
        if time.monotonic() > deadline:
            leaks.end(home)
            return left
        pause.wait(0.02)
    return []
