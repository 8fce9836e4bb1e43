"""The rules find what they are there to find: each is run on a small tree that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.layers import Row
from tests.architecture.source import Source

ROWS = (
    Row("low", "nothing", "none"),
    Row("middle", "low", "msgspec, numpy (lazily), ray (one module)"),
    Row("high", "low, middle.door (lazily)", "none"),
    Row("top", "all of the above", "none"),
)


@pytest.fixture
def tree(tmp_path: Path):
    def build(**files: str) -> Source:
        for name, text in files.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Source(tmp_path, "house")

    return build


def test_an_import_up_the_table_is_found(tree) -> None:
    source = tree(low="import house.middle", middle__door="from house import low")

    assert ["house.low:1: low may not import middle"] == rules.layer_breaches(source, ROWS)


def test_a_unit_without_a_row_is_found(tree) -> None:
    assert ["house.cellar: the unit 'cellar' has no row in the table"] == rules.layer_breaches(
        tree(cellar=""), ROWS
    )


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    from house.middle import wall",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import house.middle",
    ],
)
def test_imports_in_functions_and_for_types_count(tree, text: str) -> None:
    assert 1 == len(rules.layer_breaches(tree(low=text), ROWS))


def test_a_lazy_permission_is_for_functions_only(tree) -> None:
    source = tree(
        high__a="def f():\n    from house.middle.door import handle",
        high__b="from house.middle.door import handle",
        high__c="def f():\n    from house.middle import wall",
        middle__door="",
    )

    assert [
        "house.high.b:1: high may import middle.door inside functions only",
        "house.high.c:2: high may not import middle",
    ] == rules.layer_breaches(source, ROWS)


def test_all_of_the_above_is_all_of_the_above(tree) -> None:
    assert [] == rules.layer_breaches(tree(top="import house.low, house.middle, house.high.a"), ROWS)


def test_outside_packages_are_found(tree) -> None:
    source = tree(
        low="import json, msgspec",
        middle__a="import numpy\nimport msgspec.json\nimport ray",
        middle__b="def f():\n  import numpy\n  import ray",
    )

    assert [
        "house.low:1: low may not import the package msgspec",
        "house.middle.a:1: middle may import numpy inside functions only",
        "middle: ray belongs in one module, not in house.middle.a, house.middle.b",
    ] == rules.outside_breaches(source, ROWS)


def test_a_cycle_through_a_function_is_found(tree) -> None:
    source = tree(
        low__a="from house.low import b", low__b="import house.low.c", low__c="def f():\n  import house.low.a"
    )

    assert ["house.low.a <-> house.low.b <-> house.low.c"] == rules.cycles(source)


def test_private_names_of_another_unit_are_found(tree) -> None:
    source = tree(
        middle="from house.low import _secret, open_",
        low="_secret = open_ = 1",
        low__b="from house.low import _secret",
    )

    assert ["house.middle:1: house.low._secret is private"] == rules.private_imports(source)


def test_a_pure_module_that_reads_the_clock_is_found(tree) -> None:
    source = tree(low="import asyncio.events", middle="import asyncio")

    assert ["house.low:1: pure, but imports asyncio.events"] == rules.impurities(source, ("low",))


def test_readers_of_time_and_environment_are_found(tree) -> None:
    source = tree(
        low="import os, time\ntime.monotonic()\nos.environ['HOME']",
        middle="from time import sleep",
        clock="import time\ntime.time()",
        config="import os\nos.environ",
    )

    assert ["house.low:2: time.monotonic", "house.low:3: os.environ", "house.middle:1: time.sleep"] == sorted(
        rules.environment_and_clock_readers(source)
    )


def test_undeclared_and_doubled_names_are_found(tree) -> None:
    source = tree(
        low="__all__ = ['a', 'a']\ndef a(): ...\ndef b(): ...\n_c = 1",
        middle="class Door: ...",
        top="import low",
    )

    assert [
        "house.low: __all__ lacks b",
        "house.low: __all__ lists a twice",
        "house.middle: has public names and no __all__",
    ] == rules.undeclared_names(source)


def test_a_module_without_a_docstring_is_found(tree) -> None:
    source = tree(low="import os", middle="'''Says.'''", high____init__="")

    assert "house.low" in rules.missing_docstrings(source)
    assert "house.middle" not in rules.missing_docstrings(source)


def test_private_names_in_an_example_are_found(tree) -> None:
    source = tree(
        demo="from trygon import serve\nfrom trygon.serve.handle import DeploymentHandle\nfrom trygon.control import x\nimport trygon.serve._api"
    )

    assert [
        "demo.py:3: trygon.control.x is not public",
        "demo.py:4: trygon.serve._api is not public",
    ] == rules.private_use(source)


def test_mocks_and_sleeping_tests_are_found_and_sleeping_user_code_is_not(tree) -> None:
    source = tree(
        low="import time, asyncio\nfrom unittest import mock\n"
        "def test_a():\n  time.sleep(1)\n"
        "async def test_b():\n  await asyncio.sleep(0)\n  async def app():\n    await asyncio.sleep(9)\n"
    )

    complaints = rules.habit_breaches(source.modules["house.low"])

    assert [
        "house.low:2: imports a mock; write a fake",
        "house.low:4: sleeps; wait for an event",
    ] == complaints
