"""The file with the admin token: made once, for its owner only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from trygon.client.admin_token import ensure_token, read_token
from trygon.errors import InstanceError


def test_a_token_is_made_owner_only_and_kept(tmp_path: Path) -> None:
    path = ensure_token(tmp_path)
    token = read_token(path)
    again = read_token(ensure_token(tmp_path))

    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 43 == len(token)
    assert token == again


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_token_that_others_could_read_is_refused_and_replaced(tmp_path: Path, mode: int) -> None:
    path = ensure_token(tmp_path)
    leaked = read_token(path)
    path.chmod(mode)

    with pytest.raises(InstanceError, match="open to nobody else"):
        read_token(path)
    assert leaked != read_token(ensure_token(tmp_path))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("text", ["", "short", "a b" * 20, "\0" * 50, "é" * 50])
def test_a_file_without_a_token_is_refused_and_replaced(tmp_path: Path, text: str) -> None:
    path = ensure_token(tmp_path)
    path.write_text(text)

    with pytest.raises(InstanceError, match="no admin token"):
        read_token(path)
    assert 43 == len(read_token(ensure_token(tmp_path)))


def test_a_link_is_not_followed_and_a_pipe_not_waited_for(tmp_path: Path) -> None:
    target = ensure_token(tmp_path / ".")
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe", 0o600)

    for name in ("link", "pipe", "missing"):
        with pytest.raises(InstanceError, match="admin token"):
            read_token(tmp_path / name)
