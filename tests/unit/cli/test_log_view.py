"""Which log lines a person sees, and how they are marked."""

from __future__ import annotations

import pytest

from trygon.cli.log_view import LogView
from trygon.client.log_tail import LogSource

REPLICA = LogSource("replica", "default_Hello", "abcd1234")
OTHER = LogSource("replica", "default_Hello", "efgh5678")
INGRESS = LogSource("ingress", "ingress", "0")
CONTROLLER = LogSource("controller", "controller", "")
STAMP = "2025-01-31 13:05:59,123"
TRACE = ["Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "ValueError: no"]


class Shown(list[str]):
    """What a view wrote."""

    def __init__(self, *, is_coloured: bool = False, shows_all: bool = False) -> None:
        super().__init__()
        self.view = LogView(self.extend, is_coloured=is_coloured, shows_all=shows_all)


def test_prints_get_the_name_of_their_replica() -> None:
    shown = Shown()

    shown.view.take(REPLICA, ["hello", "  indented"])

    assert shown == ["default_Hello abcd1234 | hello", "default_Hello abcd1234 |   indented"]


@pytest.mark.parametrize(
    "line",
    [
        f"INFO {STAMP} default_Hello abcd1234 -- logged",
        f"Level 25 {STAMP} default_Hello abcd1234 -- logged",
        '{"levelname": "INFO", "message": "logged"}',
    ],
)
def test_lines_in_our_own_format_stay_as_they_are(line: str) -> None:
    shown = Shown()

    shown.view.take(REPLICA, [line])

    assert shown == [line]


def test_controller_speaks_from_warnings_on() -> None:
    shown = Shown()

    shown.view.take(CONTROLLER, [f"INFO {STAMP} trygon.control -- revision complete", "detail"])
    shown.view.take(CONTROLLER, [f"WARNING {STAMP} trygon.control -- something", "its detail"])

    assert shown == [f"WARNING {STAMP} trygon.control -- something", "controller | its detail"]


def test_raw_output_of_the_controller_is_shown() -> None:
    shown = Shown()

    shown.view.take(CONTROLLER, ["Fatal Python error: Segmentation fault"])

    assert shown == ["controller | Fatal Python error: Segmentation fault"]


def test_everything_can_be_shown() -> None:
    shown = Shown(shows_all=True)

    shown.view.take(CONTROLLER, [f"DEBUG {STAMP} trygon.control -- detail"])

    assert len(shown) == 1


def test_failed_starts_are_left_out_while_somebody_else_tells_them() -> None:
    shown = Shown()
    head = f"ERROR {STAMP} default_Hello abcd1234 -- the replica failed to start:"
    shown.view.hide_start_failures(hide=True)

    # The lines may come in pieces.
    shown.view.take(REPLICA, [head, TRACE[0]])
    shown.view.take(OTHER, ["said meanwhile"])
    shown.view.take(REPLICA, [*TRACE[1:], f"INFO {STAMP} default_Hello abcd1234 -- next"])

    assert shown == [
        "default_Hello efgh5678 | said meanwhile",
        f"INFO {STAMP} default_Hello abcd1234 -- next",
    ]


def test_a_failure_that_was_told_is_left_out_when_it_is_read_later() -> None:
    shown = Shown()
    head = f"ERROR {STAMP} default_Hello abcd1234 -- the replica failed to start:"
    shown.view.already_told("\n".join(TRACE) + "\n")

    shown.view.take(REPLICA, [head, *TRACE])
    assert shown == []

    shown.view.take(REPLICA, [head, *TRACE[:-1], "ValueError: another"])
    assert shown[0] == head
    assert shown[-1].endswith("| ValueError: another")


def test_failed_revisions_are_left_to_the_command_that_deploys() -> None:
    shown = Shown()

    shown.view.take(
        CONTROLLER, [f"ERROR {STAMP} trygon.control -- revision 2 of application 'a' failed: Traceback", "x"]
    )

    assert shown == []


def test_warnings_and_names_are_coloured_on_a_terminal() -> None:
    shown = Shown(is_coloured=True)

    shown.view.take(INGRESS, [f"WARNING {STAMP} ingress 0 -- slow"])
    shown.view.take(REPLICA, ["hello"])

    assert shown[0].startswith("\x1b[33mWARNING")
    assert shown[1].startswith("\x1b[")
    assert shown[1].endswith("\x1b[0m hello")
