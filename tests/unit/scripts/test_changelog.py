"""News fragments are well named, and come together as a section."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import changelog


def test_well_named_fragments_raise_no_complaint(tmp_path: Path) -> None:
    for name in ("2.feature.md", "2.feature.1.md", "13.fix.md", "7.change.md", "7.removal.md"):
        (tmp_path / name).write_text("Something is better now.\n")
    (tmp_path / "README.md").write_text("How to.\n")

    assert [] == changelog.complaints(tmp_path)


@pytest.mark.parametrize(
    "name", ["feature.md", "2.news.md", "2.fix", "2.fix.txt", "02.fix.md", "two.fix.md", "2.fix.a.md"]
)
def test_a_badly_named_fragment_is_named_with_the_right_form(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Something is better now.\n")

    assert [f"{name}: want <issue>.<feature|change|fix|removal>[.<n>].md"] == changelog.complaints(tmp_path)


def test_empty_and_headed_fragments_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.fix.md").write_text(" \n")
    (tmp_path / "2.fix.md").write_text("# Fix\n")

    assert 2 == len(changelog.complaints(tmp_path))


def test_the_draft_orders_by_type_and_issue(tmp_path: Path) -> None:
    (tmp_path / "12.fix.md").write_text("Twelve works.\n")
    (tmp_path / "3.fix.md").write_text("Three works.\nAlways.\n")
    (tmp_path / "5.feature.md").write_text("Five is new.\n")

    assert (
        "## Unreleased\n\n### Added\n\n- Five is new. (#5)\n\n### Fixed\n\n"
        "- Three works.\n  Always. (#3)\n- Twelve works. (#12)\n"
    ) == changelog.draft(tmp_path)


def test_the_command_checks_the_folder_of_this_project() -> None:
    result = subprocess.run(
        [sys.executable, changelog.__file__, "check"], capture_output=True, text=True, timeout=20, check=False
    )

    assert (0, "") == (result.returncode, result.stderr)
