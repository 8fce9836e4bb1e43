"""Pages: whole or as before, alive as long as their writer, and folded into totals that never go down."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.observability.metrics.content import Content, decode, encode
from trygon.observability.metrics.families import FamilySnapshot
from trygon.observability.metrics.gathering import fold_if_many, gather
from trygon.observability.metrics.pages import Page, is_dead, read_page


def requests(count: float, replica: str) -> FamilySnapshot:
    return FamilySnapshot(
        "requests",
        "counter",
        "",
        ("application", "replica"),
        (),
        False,
        "all_requests",
        {("a", replica): count},
    )


def publish(folder: Path, name: str, *families: FamilySnapshot) -> Page:
    page = Page(folder / f"{name}.page")
    page.write(encode(Content(list(families), {("a", "D"): [(0, 1, [2, 3])]}, (1.0,))))
    return page


def samples(folder: Path, wall: float = 0.0) -> dict[str, dict[tuple[str, ...], object]]:
    return {family.name: family.samples for family in gather(folder, wall).families}


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=12))
def test_a_page_holds_what_was_written_last(contents: list[bytes]) -> None:
    path = Path(tempfile.mkdtemp()) / "a.page"
    page = Page(path)
    try:
        for content in contents:
            page.write(content)

            assert content == read_page(path)
    finally:
        page.close()
        path.unlink()
        path.parent.rmdir()


def test_a_write_that_stops_halfway_leaves_the_content_before(tmp_path: Path) -> None:
    page = Page(tmp_path / "a.page")
    page.write(b"first")
    # What a writer leaves that is killed before it moves the header.
    with open(tmp_path / "a.page", "r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"half of the sec")

    assert b"first" == read_page(tmp_path / "a.page")
    page.close()


def test_a_page_is_dead_when_its_writer_has_closed_it(tmp_path: Path) -> None:
    page = Page(tmp_path / "a.page")
    alive = is_dead(tmp_path / "a.page")
    page.close()

    assert (False, True) == (alive, is_dead(tmp_path / "a.page"))


def test_a_page_is_the_owners_alone(tmp_path: Path) -> None:
    page = Page(tmp_path / "a.page")

    assert 0o600 == (tmp_path / "a.page").stat().st_mode & 0o777
    page.close()


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 100])
def test_what_is_no_page_has_no_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.page").write_bytes(content)

    assert read_page(tmp_path / "a.page") is None
    assert {} == samples(tmp_path)


def test_the_counts_of_a_dead_process_stay_in_the_total_and_its_page_goes(tmp_path: Path) -> None:
    dead = publish(tmp_path, "r1", requests(5, "r1"))
    page = publish(tmp_path, "r2", requests(2, "r2"))
    before = samples(tmp_path)
    dead.close()
    after = samples(tmp_path)

    assert {("a",): 7} == before["all_requests"]
    assert {("a",): 7} == after["all_requests"]
    assert {("a", "r1"): 5, ("a", "r2"): 2} == after["requests"]
    assert not (tmp_path / "r1.page").exists()
    page.close()


def test_the_series_of_a_dead_process_ends_ten_minutes_later_and_the_total_stays(tmp_path: Path) -> None:
    publish(tmp_path, "r1", requests(5, "r1")).close()
    samples(tmp_path, 0.0)

    later = samples(tmp_path, 601.0)

    assert "requests" not in later
    assert {("a",): 5} == later["all_requests"]


def test_a_page_that_could_not_be_removed_is_not_counted_twice(tmp_path: Path) -> None:
    publish(tmp_path, "r1", requests(5, "r1")).close()
    kept = (tmp_path / "r1.page").read_bytes()
    samples(tmp_path)
    (tmp_path / "r1.page").write_bytes(kept)

    assert {("a",): 5} == samples(tmp_path)["all_requests"]


def test_the_traffic_of_a_dead_process_counts_for_its_minute(tmp_path: Path) -> None:
    publish(tmp_path, "r1", requests(5, "r1")).close()
    page = publish(tmp_path, "r2", requests(5, "r2"))
    gather(tmp_path, 0.0)

    traffic = gather(tmp_path, 0.0).traffic(1.0)["a", "D"]

    assert 10 / 56 == pytest.approx(traffic.requests_per_s)
    page.close()


def test_many_pages_of_dead_processes_are_folded_without_a_reader(tmp_path: Path) -> None:
    for number in range(64):
        publish(tmp_path, f"r{number}", requests(1, f"r{number}")).close()

    fold_if_many(tmp_path, 0.0)

    assert [] == [path.name for path in tmp_path.glob("r*.page")]
    assert {("a",): 64} == samples(tmp_path)["all_requests"]


def test_a_damaged_total_costs_no_scrape(tmp_path: Path) -> None:
    publish(tmp_path, "r1", requests(5, "r1")).close()
    (tmp_path / "metrics-totals.page").write_bytes(b"{")

    assert {("a",): 5} == samples(tmp_path)["all_requests"]


def test_what_is_no_content_is_told() -> None:
    for data in (b"[]", b"{}", b"nonsense"):
        with pytest.raises(ValueError):
            decode(data)
