"""What people and programs get to see of a simulation."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from trygon.errors import TrygonError
from trygon.simulation.fleet import Outcome, Setup, run
from trygon.simulation.policies import StaticPolicy
from trygon.simulation.report import as_json, as_page, as_table, draw
from trygon.simulation.trace import Trace, generate

SETUP = Setup(warm_up_s=0.0)


@pytest.fixture
def seen() -> tuple[Trace, list[Outcome]]:
    trace = generate("steps", duration_s=1200.0)
    return trace, [run(trace, StaticPolicy(count), SETUP) for count in (2, 30)]


def test_the_table_has_a_line_for_each_policy(seen: tuple[Trace, list[Outcome]]) -> None:
    head, first, second = as_table(seen[1], SETUP)

    assert head.startswith("POLICY")
    assert first.startswith("static 2")
    assert first.endswith("not met")
    assert second.endswith("  met")


def test_json_can_be_read_even_when_requests_were_never_served(seen: tuple[Trace, list[Outcome]]) -> None:
    found = json.loads(json.dumps(as_json(seen[0], seen[1], SETUP), allow_nan=False))

    assert [False, True] == [policy["meets_objective"] for policy in found["policies"]]
    assert found["trace"]["requests"] == len(seen[0])


def test_the_page_needs_no_network(seen: tuple[Trace, list[Outcome]]) -> None:
    page = as_page(seen[0], seen[1], SETUP)

    assert page.count("<svg") == 2
    assert "http" not in page
    assert "<script" not in page


def test_a_picture_is_drawn_or_says_what_is_missing(
    tmp_path: Path, seen: tuple[Trace, list[Outcome]]
) -> None:
    path = tmp_path / "picture.png"
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(TrygonError, match="plots"):
            draw(path, *seen, SETUP)
    else:
        draw(path, *seen, SETUP)
        assert path.read_bytes().startswith(b"\x89PNG")
