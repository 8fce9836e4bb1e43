"""Finding instances by their directories, and tidying up after dead ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trygon.client.instances import choose, find, list_running, new_name, place, prune_states
from trygon.client.rundir import RunDir, check_private, check_socket_path, make_private_dir
from trygon.errors import InstanceError
from trygon.spec.instance import InstanceConfig, InstanceRecord


def record(folder: Path) -> InstanceRecord:
    return InstanceRecord(
        name=folder.name,
        pid=1,
        supervisor_pid=2,
        host="127.0.0.1",
        port=8000,
        controller_address=str(folder / "controller.sock"),
        runtime_dir=str(folder),
        state_dir="",
        log_dir="",
    )


def live(root: Path, name: str) -> RunDir:
    held = RunDir.acquire(root / name)
    assert held is not None
    held.write_record(record(root / name))
    return held


def test_no_directory_is_no_instance(tmp_path: Path) -> None:
    assert [] == list_running(tmp_path / "nothing")
    assert choose(tmp_path / "nothing") is None
    assert find(tmp_path, "nobody") is None


def test_single_running_instance_is_chosen_and_several_must_be_named(tmp_path: Path) -> None:
    one = live(tmp_path, "one")
    assert record(tmp_path / "one") == choose(tmp_path)

    two = live(tmp_path, "two")
    with pytest.raises(InstanceError, match="2 instances are running: 'one', 'two'"):
        choose(tmp_path)
    assert record(tmp_path / "two") == choose(tmp_path, name="two")
    assert choose(tmp_path, name="three") is None

    one.remove()
    assert record(tmp_path / "two") == choose(tmp_path)
    two.remove()
    assert [] == list(tmp_path.iterdir())


def test_directory_is_held_once_and_for_as_long_as_its_holder_lives(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from trygon.client.rundir import RunDir;"
        "held = RunDir.acquire(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert b"held\n" == holder.stdout.readline()
        assert RunDir.acquire(tmp_path / "x") is None
        assert RunDir.is_alive(tmp_path / "x")

        holder.kill()
        holder.wait()

    assert not RunDir.is_alive(tmp_path / "x")
    held = RunDir.acquire(tmp_path / "x")
    assert held is not None
    held.remove()


def test_looking_at_a_free_directory_does_not_take_it(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o700)
    (tmp_path / "x" / "lock").touch()

    assert not RunDir.is_alive(tmp_path / "x")

    held = RunDir.acquire(tmp_path / "x")
    assert held is not None
    held.remove()


def test_private_directories_are_private_with_their_parents(tmp_path: Path) -> None:
    make_private_dir(tmp_path / "a" / "b")

    assert [0o700, 0o700] == [(tmp_path / part).stat().st_mode & 0o777 for part in ("a", "a/b")]


def test_link_or_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()

    for name in ("link", "file"):
        with pytest.raises(InstanceError, match=name):
            make_private_dir(tmp_path / name)


def test_root_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    check_private(tmp_path / "not there yet")
    tmp_path.chmod(0o777)

    with pytest.raises(InstanceError, match="TRYGON_RUNTIME_DIR"):
        check_private(tmp_path)

    tmp_path.chmod(0o700)
    check_private(tmp_path)


def test_long_socket_path_is_refused() -> None:
    check_socket_path(Path("/run/user/1000/trygon/default"))

    with pytest.raises(InstanceError, match="socket paths of 131 bytes"):
        check_socket_path(Path("/" + "x" * 114))


def test_logs_of_dead_unnamed_instances_are_kept_for_the_newest_only(tmp_path: Path) -> None:
    states, runs = tmp_path / "home", tmp_path / "run"
    for number in range(6):
        folder = states / f"i-0000000{number}"
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    (states / "precious").mkdir()
    os.utime(states / "precious", (0, 0))
    running = live(runs, "i-00000000")

    prune_states(states, runs, keep=2)
    prune_states(tmp_path / "nothing", runs)

    assert ["i-00000000", "i-00000004", "i-00000005", "precious"] == sorted(p.name for p in states.iterdir())
    running.remove()


def test_places_lie_below_the_roots_and_names_differ() -> None:
    placed = place(InstanceConfig(name="", runtime_dir="/run/t", state_dir="/home/t"), "x")

    assert ("x", "/run/t/x", "/home/t/x") == (placed.name, placed.runtime_dir, placed.state_dir)
    assert new_name() != new_name()
