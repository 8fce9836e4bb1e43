"""Kills for memory: what the kernel's files say, and which death is one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from trygon.engine.memory import OomCounter, describe_bytes, find_counter, parse_count, tell_exit

EVENTS_V2 = "low 0\nhigh 0\nmax 41\noom 3\noom_kill 2\noom_group_kill 0\n"
CONTROL_V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"


@pytest.mark.parametrize(
    "text, count",
    [
        (EVENTS_V2, 2),
        (CONTROL_V1, 7),
        ("pgfault 12\noom_kill 0\nnuma_hit 3\n", 0),
        ("oom_kill_disable 0\nunder_oom 0\n", None),
        ("", None),
    ],
)
def test_the_count_is_found_in_each_of_the_kernels_files(text: str, count: int | None) -> None:
    assert count == parse_count(text)


def test_the_counter_of_the_own_group_is_found_in_both_versions(tmp_path: Path) -> None:
    own_v2 = tmp_path / "user.slice" / "app"
    own_v1 = tmp_path / "memory" / "docker" / "abc"
    for folder, name, text in (
        (own_v2, "memory.events", EVENTS_V2),
        (own_v1, "memory.oom_control", CONTROL_V1),
    ):
        folder.mkdir(parents=True)
        (folder / name).write_text(text)

    assert own_v2 / "memory.events" == find_counter("0::/user.slice/app\n", tmp_path)
    v1 = "5:devices:/\n4:cpu,memory:/docker/abc\n0::/\n"
    assert own_v1 / "memory.oom_control" == find_counter(v1, tmp_path)


def test_the_counter_of_a_container_is_at_the_root_of_its_mount(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(EVENTS_V2)

    assert tmp_path / "memory.events" == find_counter("0::/not/visible/here\n", tmp_path)


def test_a_process_in_no_group_has_the_counter_of_the_machine_or_none(tmp_path: Path) -> None:
    assert find_counter("", tmp_path) in (Path("/proc/vmstat"), None)


def test_a_death_after_a_rise_of_the_counter_was_for_memory_and_the_next_was_not(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("oom_kill 5\n")
    counter = OomCounter(file)

    assert not counter.claim(0.0)
    file.write_text("oom_kill 6\n")
    assert counter.claim(1.0)
    assert not counter.claim(1.1)


def test_a_rise_that_nobodys_death_explains_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("oom_kill 5\n")
    counter = OomCounter(file)
    file.write_text("oom_kill 6\n")

    for now in (1.0, 2.0, 3.0, 4.0, 5.0):
        counter.look(now)

    assert not counter.claim(6.0)


def test_a_machine_that_does_not_count_is_known_as_such(tmp_path: Path) -> None:
    counter = OomCounter(tmp_path / "missing")

    assert not counter.is_known
    assert not OomCounter(None).is_known
    assert not counter.claim(1.0)


@pytest.mark.parametrize(
    "count, text", [(1_230_000_000, "1.2 GB"), (45_600_000, "45.6 MB"), (2_000, "2.0 kB"), (7, "7 B")]
)
def test_bytes_are_written_as_people_do(count: int, text: str) -> None:
    assert text == describe_bytes(count)


def test_the_event_tells_a_kill_for_memory_with_its_peak() -> None:
    event = tell_exit("a#b#c", 7, -signal.SIGKILL, peak_bytes=1_230_000_000, oom=True, reason="killed")

    assert event.out_of_memory
    assert 1_230_000_000 == event.peak_bytes
    assert "was killed because memory ran out (peak 1.2 GB)" == event.reason
    assert (None, signal.SIGKILL) == (event.exit_code, event.signal)


def test_the_event_of_an_ordinary_end_says_nothing_of_memory() -> None:
    killed = tell_exit("a#b#c", 7, -signal.SIGKILL, peak_bytes=5, oom=False, reason="killed by SIGKILL")
    ended = tell_exit("a#b#c", 7, 3, peak_bytes=5, oom=False, reason="exit code 3")
    unknown = tell_exit("a#b#c", 7, -signal.SIGKILL, peak_bytes=5, oom=None, reason="killed by SIGKILL")

    assert "killed by SIGKILL" == killed.reason
    assert (3, None, False) == (ended.exit_code, ended.signal, ended.out_of_memory)
    assert "killed by SIGKILL, perhaps because memory ran out" == unknown.reason
