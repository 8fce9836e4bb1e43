"""Which logs of dead replicas are removed."""

from __future__ import annotations

import os
from pathlib import Path

from trygon.control.old_logs import prune_logs


def _log(folder: Path, name: str, age: int) -> Path:
    path = folder / name
    path.write_text(name)
    os.utime(path, (10_000 - age, 10_000 - age))
    return path


def test_the_newest_logs_of_a_deployment_stay_and_those_of_others_are_not_counted(tmp_path: Path) -> None:
    own = [_log(tmp_path, f"replica_app_Main_abcdefg{n}.log", age=n) for n in range(2, 8)]
    others = [
        _log(tmp_path, "replica_app_Main_other_abcdefg2.log", age=100),
        _log(tmp_path, "replica_app_Mainly_abcdefg2.log", age=100),
        _log(tmp_path, "controller.log", age=100),
    ]

    prune_logs(own[0], (), keep=3)

    assert own[:3] == [path for path in own if path.exists()]
    assert all(path.exists() for path in others)


def test_logs_of_living_replicas_stay_whatever_their_age(tmp_path: Path) -> None:
    old = _log(tmp_path, "replica_app_Main_abcdefg2.log", age=1000)
    rotated = _log(tmp_path, "replica_app_Main_abcdefg2.log.1", age=2000)
    dead = [_log(tmp_path, f"replica_app_Main_abcdefg{n}.log", age=n) for n in range(3, 6)]

    prune_logs(dead[0], {str(old)}, keep=1)

    assert old.exists()
    assert rotated.exists()
    assert [dead[0]] == [path for path in dead if path.exists()]


def test_rotated_logs_of_dead_replicas_are_counted_too(tmp_path: Path) -> None:
    rotated = _log(tmp_path, "replica_app_Main_abcdefg2.log.1", age=50)
    dead = _log(tmp_path, "replica_app_Main_abcdefg2.log", age=1)

    prune_logs(dead, (), keep=1)

    assert dead.exists()
    assert not rotated.exists()


def test_the_log_of_the_newly_dead_stays_though_it_was_silent_for_long(tmp_path: Path) -> None:
    dead = _log(tmp_path, "replica_app_Main_abcdefg2.log", age=1000)
    others = [_log(tmp_path, f"replica_app_Main_abcdefg{n}.log", age=n) for n in range(3, 6)]

    prune_logs(dead, (), keep=2)

    assert [dead, others[0]] == [path for path in (dead, *others) if path.exists()]


def test_a_folder_that_is_gone_is_nobodys_failure(tmp_path: Path) -> None:
    prune_logs(tmp_path / "gone" / "replica_app_Main_abcdefg2.log", ())
