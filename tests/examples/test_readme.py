"""Every code block of README.md and docs/*.md runs here, as a reader would run it.

The rules for writers:

* The blocks of a page are followed from top to bottom, in one empty folder, with one port.
  "8000" in a block stands for the port: write ``http://127.0.0.1:8000``; "8265" for the admin port.
* A block whose first line is a comment with a file name (``# converter.py``, ``# config.yaml``)
  is written to that file, in any language.
* Another ``python`` block is run as a program of its own, and must end with status 0.
  If it calls ``serve.run`` while no server of the page runs, it gets an instance on the page's port.
* A ``bash`` block holds commands, one a line. A ``console`` block holds commands after ``$ ``, each with
  the output that the reader will see; ``...`` in it stands for anything.
  Commands may be ``trygon ...``, ``python FILE.py``, ``python -m MODULE`` and ``curl ...``.
  ``$(trygon ...)`` in a command stands for what that prints.
  Commands that set a machine up (``git``, ``cd``, ``pip``, ``python -m venv``, ``source``, ``apt-get``) are not run;
  for ``scripts/...`` it is only checked that the script is there. Anything else fails the test.
* ``trygon run ...`` runs until the page's next ``trygon run`` or its end, and must then end cleanly on Ctrl-C.
  Output shown below it is not compared.
* Other languages (``text``, ``yaml``, ``json``) are left alone.
* The word ``no-run`` after the language (```` ```python no-run ````) leaves a block alone: for fragments,
  and for what needs a cluster or another machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.pages import ROOT, Block, Command, Reader, matches, read_blocks, read_commands

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_block_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        for block in read_blocks(page.read_text(encoding="utf-8")):
            reader.follow(block)


def test_blocks_are_found_with_language_words_and_line() -> None:
    page = "Text\n```python no-run\nx = 1\n```\n1. Item:\n   ```bash\n   curl a\n   ```\n"

    assert [
        Block("python", ("no-run",), "x = 1\n", 2),
        Block("bash", (), "curl a\n", 6),
    ] == read_blocks(page)


def test_commands_are_read_with_their_output() -> None:
    console = Block("console", (), "$ curl a\n1\n2\n$ curl \\\n  b\n", 1)
    bash = Block("bash", (), "# first\ncurl a\n\ncurl b\n", 1)

    assert [Command("curl a", "1\n2"), Command("curl b")] == read_commands(console)
    assert [Command("curl a"), Command("curl b")] == read_commands(bash)


@pytest.mark.parametrize(
    "shown, output, is_match",
    [
        ("a ... c", "a b\nc", False),
        ("a ...c", "a b\nc\n", True),
        ("{...}", '{"a": 1}', True),
        ("(a)", "(a)", True),
        ("a", "b", False),
    ],
)
def test_three_dots_stand_for_anything(shown: str, output: str, is_match: bool) -> None:
    assert is_match == matches(shown, output)
