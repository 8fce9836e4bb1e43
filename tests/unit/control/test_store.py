"""The state file: whole or refused, never a silent fresh start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.control.world import application, deployment
from trygon.control.blobs import attach_definitions, detach_definitions
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


def with_definition(data: bytes) -> tuple[WantedState, dict[str, bytes]]:
    main = msgspec.structs.replace(deployment("Main"), definition=data)
    spec, blobs = detach_definitions(application(main))
    revision = Revision(number=1, spec=spec)
    return WantedState(applications=(WantedApplication(name="app", target=revision),)), blobs


def definitions(store: FileStore) -> list[bytes]:
    (kept,) = store.load().applications
    assert kept.target is not None
    return [d.definition for d in attach_definitions(kept.target.spec, store.read_blob).deployments]


def test_large_definitions_are_kept_beside_the_file_and_small_ones_in_it(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state.bin")
    large, small = b"x" * 1_000_000, b"y"

    store.save(*with_definition(large))
    assert [large] == definitions(store)
    assert (tmp_path / "state.bin").stat().st_size < 2000
    (blob,) = (tmp_path / "state.blobs").iterdir()
    assert (0o600, 0o700) == (blob.stat().st_mode & 0o777, blob.parent.stat().st_mode & 0o777)

    store.save(*with_definition(small))
    assert [small] == definitions(store)
    assert [] == list((tmp_path / "state.blobs").iterdir()), "nothing names the large one any more"


def test_a_lost_or_damaged_definition_is_told_and_never_replaced_by_nothing(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state.bin")
    store.save(*with_definition(b"x" * 100_000))
    (blob,) = (tmp_path / "state.blobs").iterdir()

    blob.write_bytes(b"x" * 99_999)
    with pytest.raises(InstanceError, match="is damaged"):
        definitions(store)
    blob.unlink()
    with pytest.raises(InstanceError, match="cannot be read"):
        definitions(store)


def test_the_file_of_a_later_version_is_refused_and_stays_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "state.bin").write_bytes(b"trygon-state-2\nsomething new")

    with pytest.raises(InstanceError, match="is of version 2, this program reads version 1"):
        FileStore(tmp_path / "state.bin").load()

    assert b"trygon-state-2\nsomething new" == (tmp_path / "state.bin").read_bytes()


def test_what_cannot_be_written_leaves_the_old_state_and_works_again_later(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state.bin")
    store.save(STATE)
    (tmp_path / "state.new").mkdir()

    with pytest.raises(InstanceError, match="nothing was changed"):
        store.save(WantedState())
    assert STATE == store.load()

    (tmp_path / "state.new").rmdir()
    store.save(WantedState())
    assert WantedState() == store.load()
