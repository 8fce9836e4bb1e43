"""The layers of Trygon hold: who imports whom, what is pure, what is private, what is public."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.layers import ROWS
from tests.architecture.source import Source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(ROOT / "src" / "trygon", "trygon")


def none(complaints: list[str]) -> None:
    assert not complaints, "\n" + "\n".join(complaints)


def test_units_import_only_what_the_table_allows(source: Source) -> None:
    none(rules.layer_breaches(source, ROWS))


def test_outside_packages_stay_in_the_units_that_need_them(source: Source) -> None:
    none(rules.outside_breaches(source, ROWS))


def test_no_module_imports_itself_through_others(source: Source) -> None:
    none(rules.cycles(source))


def test_imports_are_absolute(source: Source) -> None:
    none(rules.relative_imports(source))


def test_private_names_stay_in_their_unit(source: Source) -> None:
    none(rules.private_imports(source))


def test_modules_that_decide_do_nothing(source: Source) -> None:
    none(rules.impurities(source))


def test_only_config_reads_the_environment_and_only_clock_the_time(source: Source) -> None:
    none(rules.environment_and_clock_readers(source))


def test_every_module_says_what_it_is(source: Source) -> None:
    none(rules.missing_docstrings(source))


def test_every_public_name_is_declared(source: Source) -> None:
    none(rules.undeclared_names(source))


@pytest.mark.parametrize("folder", ["examples", "apps"])
def test_programs_for_users_import_public_names_only(folder: str) -> None:
    if not (ROOT / folder).is_dir():
        pytest.skip(f"there is no {folder}/ yet")

    none(rules.private_use(Source(ROOT / folder, "")))


def test_tests_neither_mock_nor_sleep() -> None:
    none(
        [
            complaint
            for module in Source(ROOT / "tests", "tests")
            for complaint in rules.habit_breaches(module)
        ]
    )


def test_the_architecture_page_shows_the_same_table() -> None:
    page = ROOT / "docs" / "architecture.md"
    if not page.exists():
        pytest.skip("docs/architecture.md is not written yet")
    lines = [
        [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line)
    ]
    if ["unit", "may import", "outside packages"] not in lines:
        pytest.skip("docs/architecture.md has no table headed 'unit | may import | outside packages'")
    first = lines.index(["unit", "may import", "outside packages"]) + 1

    assert [list(row) for row in ROWS] == lines[first : first + len(ROWS)]
