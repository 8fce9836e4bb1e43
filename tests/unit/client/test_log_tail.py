"""Log files are followed: whole lines, new files, files that shrink, with and without the kernel's help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until
from trygon.client.log_tail import LogSource, LogTail, source_of

Tail = Callable[..., LogTail]


class Lines(list[tuple[str, str]]):
    """What a tail handed on: (name of the source, line)."""

    def take(self, source: LogSource, lines: list[str]) -> None:
        self.extend((source.name, line) for line in lines)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture(params=[pytest.param(False, marks=pytest.mark.linux), True], ids=["inotify", "portable"])
def tail(request: pytest.FixtureRequest, tmp_path: Path, lines: Lines) -> Iterator[Tail]:
    """Start a tail of tmp_path; it is stopped with the test."""
    started: list[LogTail] = []

    def start(num_last: int = 0) -> LogTail:
        started.append(LogTail(tmp_path, lines.take, num_last=num_last, portable=request.param))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_new_lines_of_old_and_new_files_are_handed_on(tmp_path: Path, tail: Tail, lines: Lines) -> None:
    write(tmp_path / "controller.log", "old\n")
    tail()

    write(tmp_path / "controller.log", "new\n")
    write(tmp_path / "replica_a_b_abcd1234.log", "first\n")

    wait_until(lambda: len(lines) == 2, "two lines")
    assert sorted(lines) == [("a_b", "first"), ("controller", "new")]


def test_a_line_is_handed_on_when_its_end_is_written(tmp_path: Path, tail: Tail, lines: Lines) -> None:
    tail()

    write(tmp_path / "a.log", "half")
    write(tmp_path / "b.log", "whole\n")
    wait_until(lambda: lines, "a line")
    assert lines == [("b", "whole")]
    write(tmp_path / "a.log", " and half\n")

    wait_until(lambda: len(lines) == 2, "the other line")
    assert lines[1] == ("a", "half and half")


def test_stop_hands_on_what_was_written_until_then(tmp_path: Path, tail: Tail, lines: Lines) -> None:
    running = tail()

    write(tmp_path / "a.log", "last\nwords")
    running.stop()

    assert lines == [("a", "last"), ("a", "words")]


def test_a_file_that_begins_anew_is_read_anew(tmp_path: Path, tail: Tail, lines: Lines) -> None:
    path = tmp_path / "a.log"
    tail()
    write(path, "a long first line\n")
    wait_until(lambda: len(lines) == 1, "the first line")

    path.write_text("short\n")
    wait_until(lambda: len(lines) == 2, "the line after the cut")
    path.rename(tmp_path / "a.log.1")
    path.write_text("after the rotation\n")

    wait_until(lambda: len(lines) == 3, "the line after the rotation")
    assert [line for _, line in lines] == ["a long first line", "short", "after the rotation"]


def test_a_removed_file_is_no_error(tmp_path: Path, tail: Tail, lines: Lines) -> None:
    write(tmp_path / "a.log", "x\n")
    tail()

    (tmp_path / "a.log").unlink()
    write(tmp_path / "b.log", "still there\n")

    wait_until(lambda: lines, "a line")
    assert lines == [("b", "still there")]


def test_other_files_are_not_read(tmp_path: Path, tail: Tail, lines: Lines) -> None:
    tail()

    write(tmp_path / "state.bin", "binary\n")
    write(tmp_path / "a.log", "text\n")

    wait_until(lambda: lines, "a line")
    assert lines == [("a", "text")]


@pytest.mark.parametrize("count, wanted", [(0, []), (1, ["3"]), (2, ["2", "3"]), (9, ["1", "2", "3"])])
def test_begins_with_the_last_lines(
    tmp_path: Path, tail: Tail, lines: Lines, count: int, wanted: list[str]
) -> None:
    write(tmp_path / "a.log", "1\n2\n3\n")

    tail(count).stop()

    assert [line for _, line in lines] == wanted


def test_the_last_lines_of_a_large_file_are_found(tmp_path: Path, tail: Tail, lines: Lines) -> None:
    write(tmp_path / "a.log", "".join(f"{number:0999}\n" for number in range(1000)))

    tail(600).stop()

    assert [int(line) for _, line in lines] == list(range(400, 1000))


def test_bytes_that_are_no_text_and_progress_bars_are_readable(
    tmp_path: Path, tail: Tail, lines: Lines
) -> None:
    running = tail()

    (tmp_path / "a.log").write_bytes(b"\xff\xfe\n10%\r50%\r100%\r\n")
    running.stop()

    assert [line for _, line in lines] == ["\ufffd\ufffd", "100%"]


def test_an_endless_line_comes_in_pieces(tmp_path: Path, tail: Tail, lines: Lines) -> None:
    running = tail()

    write(tmp_path / "a.log", "x" * 200_000)
    wait_until(lambda: lines, "a piece")
    running.stop()

    assert sum(len(line) for _, line in lines) == 200_000


def test_a_directory_that_comes_later_is_followed(tmp_path: Path, lines: Lines) -> None:
    folder = tmp_path / "logs"
    tail = LogTail(folder, lines.take)
    tail.start()

    folder.mkdir()
    write(folder / "a.log", "there\n")

    wait_until(lambda: lines, "a line")
    tail.stop()
    assert lines == [("a", "there")]


@pytest.mark.parametrize(
    "name, source",
    [
        ("replica_app_My_Model_abcd1234.log", LogSource("replica", "app_My_Model", "abcd1234")),
        ("ingress_0.log", LogSource("ingress", "ingress", "0")),
        ("controller.log", LogSource("controller", "controller", "")),
        ("other_file.log", LogSource("other_file", "other_file", "")),
    ],
)
def test_names_of_files_tell_who_writes_them(name: str, source: LogSource) -> None:
    assert source_of(name) == source


def test_rotation_loses_no_line(tmp_path: Path, tail: Tail, lines: Lines) -> None:
    log = tmp_path / "replica_a_b_abcd1234.log"
    write(log, "one\n")
    tail()
    write(log, "two\n")
    wait_until(lambda: lines, "the line before")

    write(log, "three\nhalf")
    log.rename(tmp_path / "replica_a_b_abcd1234.log.1")
    write(log, "four\n")

    wait_until(lambda: len(lines) == 4, "the lines around the rotation")
    assert ["two", "three", "half", "four"] == [text for _, text in lines]
