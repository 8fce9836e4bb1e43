"""Requirements files and local paths in them become one list that means the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from trygon.client.requirements import complete_packages, digest_of
from trygon.errors import DeployError
from trygon.spec.packages import PackageEnvironment


def completed(folder: Path, *lines: str) -> PackageEnvironment:
    return complete_packages(PackageEnvironment(requirements=lines), str(folder))


def test_a_requirements_file_is_read_with_those_that_it_includes(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "requirements.txt").write_text(
        "b  ; python_version > '3'\n-r more/base.txt\n--find-links wheels\n"
    )
    (tmp_path / "more" / "base.txt").write_text("a==1\n./x.whl\n")
    (tmp_path / "more" / "x.whl").write_text("x")

    found = complete_packages(PackageEnvironment(file="requirements.txt"), str(tmp_path))

    wheel = str(tmp_path / "more" / "x.whl")
    assert (
        f"--find-links {tmp_path}/wheels",
        wheel,
        "a==1",
        "b ; python_version > '3'",
    ) == found.requirements
    assert {wheel: digest_of(wheel)} == found.digests
    assert found.id
    assert complete_packages(found, "/elsewhere") is found


def test_another_content_of_a_local_file_or_project_is_another_environment(tmp_path: Path) -> None:
    (tmp_path / "project" / "__pycache__").mkdir(parents=True)
    (tmp_path / "project" / "x.py").write_text("1")
    (tmp_path / "c.txt").write_text("a<2")
    lines = ("./project[extra] ; python_version > '3'", "-c c.txt")

    first = completed(tmp_path, *lines)
    (tmp_path / "project" / "__pycache__" / "x.pyc").write_text("left out")
    again = completed(tmp_path, *lines)
    (tmp_path / "project" / "x.py").write_text("2")
    edited = completed(tmp_path, *lines)
    (tmp_path / "c.txt").write_text("a<3")
    constrained = completed(tmp_path, *lines)

    assert f"{tmp_path}/project[extra] ; python_version > '3'" in first.requirements
    assert first == again
    assert 3 == len({first.id, edited.id, constrained.id})


def test_names_and_addresses_are_left_as_they_are(tmp_path: Path) -> None:
    lines = ("a[x]>=1", "b @ https://host/b.whl", "git+https://host/c", "--index-url https://host/simple")

    assert set(lines) == set(completed(tmp_path, *lines, "-c https://host/c.txt").requirements) - {
        "-c https://host/c.txt"
    }


@pytest.mark.parametrize("line", ["./x.whl", "-r x.txt", "-c x.txt", "-e ./x", "~/no/such/x.whl"])
def test_a_file_that_is_not_there_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="cannot be read: No such file or directory; correct the path"):
        completed(tmp_path, line)


def test_a_file_that_includes_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("-r r.txt\n")

    with pytest.raises(DeployError, match="includes itself"):
        completed(tmp_path, "-r r.txt")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes(b"\xff\xfe")

    with pytest.raises(DeployError, match="it is not text in UTF-8"):
        completed(tmp_path, "-r r.txt")
