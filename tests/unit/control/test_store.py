"""The state file: whole or refused, never a silent fresh start."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.control.world import application
from trygon.control.state import Revision
from trygon.control.store import FileStore, WantedApplication, WantedState
from trygon.errors import InstanceError

REVISION = Revision(number=3, spec=application(), deployed_wall_s=12.5, token="t", notes={"Main": "n"})
STATE = WantedState(
    applications=(WantedApplication(name="app", target=REVISION, serving=REVISION, last_revision=3),),
    last_revisions={"old": 7},
)


def test_missing_file_is_an_empty_state(tmp_path: Path) -> None:
    assert WantedState() == FileStore(tmp_path / "state.bin").load()


@pytest.mark.parametrize("durable", [True, False])
def test_what_was_saved_is_loaded(tmp_path: Path, durable: bool) -> None:
    store = FileStore(tmp_path / "state.bin", durable=durable)

    store.save(WantedState())
    store.save(STATE)

    assert STATE == store.load()
    assert 0o600 == (tmp_path / "state.bin").stat().st_mode & 0o777


def test_cleared_store_is_empty(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state.bin")
    store.save(STATE)

    store.clear()
    store.clear()

    assert WantedState() == store.load()


@given(data=st.data())
def test_any_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = FileStore(folder / "state.bin", durable=False)
    store.save(STATE)
    whole = (folder / "state.bin").read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    damaged = (
        whole[:position] if cut else whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
    )
    (folder / "state.bin").write_bytes(damaged)

    with pytest.raises(InstanceError, match="cannot be read"):
        store.load()
    with pytest.raises(InstanceError, match="remove that file to start empty"):
        store.load()

    assert damaged == (folder / "state.corrupt").read_bytes()


def test_good_copy_put_back_is_used(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state.bin")
    (tmp_path / "state.corrupt").write_bytes(b"?")

    store.save(STATE)

    assert STATE == store.load()
