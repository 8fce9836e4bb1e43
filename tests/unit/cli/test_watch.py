"""Saved Python files are noticed, other things are not."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trygon.cli.watch import SourceWatcher

Watch = Callable[..., "queue.SimpleQueue[list[str]]"]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Watch tmp_path (and files); changes come out of the queue."""
    watchers: list[SourceWatcher] = []

    def start(*files: Path) -> queue.SimpleQueue[list[str]]:
        changes: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        watcher = SourceWatcher([str(tmp_path)], changes.put, period_s=0.02)
        watcher.add_files(map(str, files))
        watcher.start()
        watchers.append(watcher)
        return changes

    yield start
    for watcher in watchers:
        watcher.stop()


def test_written_added_and_removed_files_are_changes(tmp_path: Path, watch: Watch) -> None:
    kept, gone = tmp_path / "kept.py", tmp_path / "gone.py"
    kept.write_text("1")
    gone.write_text("1")
    changes = watch()

    kept.write_text("2")
    gone.unlink()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "new.py").write_text("1")

    assert changes.get(timeout=5) == sorted(map(str, (kept, gone, tmp_path / "sub" / "new.py")))


def test_an_editor_that_replaces_the_file_is_noticed(tmp_path: Path, watch: Watch) -> None:
    path = tmp_path / "a.py"
    path.write_text("1")
    before = path.stat()
    changes = watch()

    (tmp_path / "a.tmp").write_text("2")
    os.utime(tmp_path / "a.tmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "a.tmp").rename(path)

    assert changes.get(timeout=5) == [str(path)]


def test_other_files_hidden_folders_and_environments_are_not_watched(tmp_path: Path, watch: Watch) -> None:
    env = tmp_path / "env"
    for folder in (tmp_path / ".git", tmp_path / "__pycache__", tmp_path / "node_modules", env):
        folder.mkdir()
    (env / "pyvenv.cfg").write_text("")
    changes = watch()

    for folder in (".git", "__pycache__", "node_modules", "env"):
        (tmp_path / folder / "a.py").write_text("1")
    (tmp_path / "notes.txt").write_text("1")
    (tmp_path / "seen.py").write_text("1")

    assert changes.get(timeout=5) == [str(tmp_path / "seen.py")]


def test_single_files_are_watched_wherever_they_are(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, watch: Watch
) -> None:
    far = tmp_path_factory.mktemp("far") / "far.py"
    far.write_text("1")
    changes = watch(far)

    far.write_text("22")

    assert changes.get(timeout=5) == [str(far)]


def test_a_file_that_vanishes_and_comes_back_is_a_change_again(tmp_path: Path, watch: Watch) -> None:
    path = tmp_path / "a.py"
    path.write_text("1")
    changes = watch(path)

    path.unlink()
    assert changes.get(timeout=5) == [str(path)]
    path.write_text("1")

    assert changes.get(timeout=5) == [str(path)]
