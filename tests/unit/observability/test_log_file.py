"""A process's log file begins anew when it is too large, however it was written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trygon.observability.log_file import LogFile, Rotation, rotation_or, use_rotation


class Log:
    """A log file of 100 bytes under a descriptor of its own, in virtual time."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.path = folder / "x.log"
        self.fd = os.open(os.devnull, os.O_WRONLY)
        self.file = self.another(self.fd)
        self.file.open()

    def another(self, fd: int) -> LogFile:
        return LogFile(str(self.path), lambda: self.now, fds=(fd,), max_bytes=100, kept=2)

    def write(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def look(self) -> None:
        self.now += 1.5
        self.file.note_written(1)

    def text(self, suffix: str = "") -> str:
        return Path(f"{self.path}{suffix}").read_text()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    found = Log(tmp_path)
    yield found
    os.close(found.fd)


def test_a_file_that_is_too_large_is_renamed_and_the_last_ones_are_kept(log: Log) -> None:
    for name in "abcd":
        log.write(name * 101)
        log.look()
    log.write("end")

    assert "end" == log.text()
    assert ("d" * 101, "c" * 101) == (log.text(".1"), log.text(".2"))
    assert 3 == len(list(log.path.parent.iterdir()))
    assert 0o600 == log.path.stat().st_mode & 0o777


def test_the_size_is_looked_at_once_a_second_or_after_a_megabyte(log: Log) -> None:
    log.file.note_written(1)
    log.write("x" * 200)

    log.file.note_written(200)
    assert [log.path] == list(log.path.parent.iterdir())

    log.file.note_written(1 << 20)
    assert "" == log.text()


def test_of_two_processes_on_one_file_the_second_follows_the_first(log: Log) -> None:
    fd = os.dup(log.fd)
    forked = log.another(fd)
    log.write("x" * 101)
    log.look()
    log.write("new")

    forked.note_written(1)
    os.write(fd, b" child")
    os.close(fd)

    assert "new child" == log.text()
    assert not Path(f"{log.path}.2").exists()


def test_a_log_whose_folder_is_gone_fails_nobody(log: Log) -> None:
    log.write("x" * 101)
    away = log.path.parent.with_name("away")
    log.path.parent.rename(away)

    log.look()
    log.write("still")

    assert (away / "x.log").read_text().endswith("still")
    away.rename(log.path.parent)


def test_sizes_and_counts_may_be_set_for_all_files_of_a_process() -> None:
    try:
        use_rotation(Rotation(max_bytes=2048))
        assert (2048, 4) == rotation_or(100, 4)
        use_rotation(Rotation(kept=9))
        assert (100, 9) == rotation_or(100, 4)
    finally:
        use_rotation(Rotation())

    assert (100, 4) == rotation_or(100, 4)
