"""Of what pip says at the end, its errors and one piece of advice are told."""

from __future__ import annotations

import pytest

from trygon.processes.pip_failure import explain_failure


@pytest.mark.parametrize(
    "output, told",
    [
        ("ERROR: No matching distribution found for reqests", "check the spelling"),
        (
            "WARNING: Retrying ... NewConnectionError\nERROR: No matching distribution found for x",
            "cannot be reached",
        ),
        ("ERROR: ResolutionImpossible: for help", "exclude one another"),
        ("ERROR: Invalid requirement: 'a=1'", "write it as pip wants it"),
        ("/usr/bin/python: No module named pip", "python -m ensurepip"),
        ("OSError: [Errno 28] No space left on device", "make room"),
        ("error: metadata-generation-failed", "has to be compiled"),
    ],
)
def test_common_failures_say_what_to_do(output: str, told: str) -> None:
    assert told in explain_failure(output).splitlines()[-1]


def test_errors_are_shown_without_what_came_before_and_bounded() -> None:
    output = (
        "Collecting x\n"
        + "\n".join(f"ERROR: number {i} {'x' * 1000}" for i in range(100))
        + "\n[notice] new pip"
    )

    lines = explain_failure(output).splitlines()

    assert 12 == len(lines)
    assert lines[-1].startswith("  ERROR: number 99 ")
    assert max(map(len, lines)) < 500


def test_without_an_error_the_last_lines_are_shown() -> None:
    assert ["  line 8", "  line 9"] == explain_failure(
        "\n".join(f"line {i}" for i in range(10))
    ).splitlines()[-2:]


def test_of_a_stack_trace_only_the_last_line_is_shown() -> None:
    output = 'Traceback (most recent call last):\n  File "x", line 1\nImportError: no such thing\n'

    assert "  ImportError: no such thing" == explain_failure(output)
