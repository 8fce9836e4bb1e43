"""What an instance keeps beside its store: the lock, and how it was started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trygon.client.startup import forget_startup, load_startup, save_startup
from trygon.client.statelock import lock_state
from trygon.errors import InstanceError
from trygon.spec.instance import InstanceConfig


def config(state_dir: Path, **fields: object) -> InstanceConfig:
    return InstanceConfig(name="x", runtime_dir="/run", state_dir=str(state_dir), **fields)  # type: ignore[arg-type]


def test_a_state_directory_is_held_by_one_instance(tmp_path: Path) -> None:
    held = lock_state(tmp_path, owner="the instance 'one'")

    with pytest.raises(InstanceError, match="in use by the instance 'one'; shut that down"):
        lock_state(tmp_path, owner="the instance 'two'")

    os.close(held)
    os.close(lock_state(tmp_path, owner="the instance 'three'"))
    assert "the instance 'three'" == (tmp_path / "lock").read_text()


def test_how_an_instance_was_started_is_kept_and_comes_back(tmp_path: Path) -> None:
    started = config(tmp_path, host="0.0.0.0", port=9000, http_options={"root_path": "/x"}, num_ingress=2)

    save_startup(started)

    before = load_startup(tmp_path)
    assert before is not None
    assert started == before.applied_to(config(tmp_path))
    assert 0o600 == (tmp_path / "start.json").stat().st_mode & 0o777
    forget_startup(tmp_path)
    assert load_startup(tmp_path) is None


def test_a_start_as_before_needs_no_room_on_the_disk(tmp_path: Path) -> None:
    save_startup(config(tmp_path))
    written = (tmp_path / "start.json").stat()

    save_startup(config(tmp_path))

    assert written == (tmp_path / "start.json").stat()


def test_an_unreadable_start_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "start.json").write_text("{")

    with pytest.raises(InstanceError, match=r"start\.json.*remove that file"):
        load_startup(tmp_path)


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match="cannot be saved"):
        save_startup(config(tmp_path / "missing"))
