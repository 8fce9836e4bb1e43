"""Lines and the status line below them."""

from __future__ import annotations

import io

from trygon.cli.terminal import Terminal

CLEAR = "\r\x1b[2K"


class Screen(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


class Broken(Screen):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    screen = Screen(is_terminal=False)
    terminal = Terminal(screen)

    terminal.status("working")
    terminal.line("done", colour="green", bold=True)

    assert screen.getvalue() == "done\n"


def test_lines_appear_above_the_status_line() -> None:
    screen = Screen(is_terminal=True)
    terminal = Terminal(screen)

    terminal.status("working")
    terminal.line("one")
    terminal.status("")
    terminal.line("two")

    status = "\x1b[2mworking\x1b[0m"
    assert screen.getvalue() == f"{status}{CLEAR}one\n{status}{CLEAR}two\n"


def test_the_same_status_is_written_once() -> None:
    screen = Screen(is_terminal=True)
    terminal = Terminal(screen)

    terminal.status("working")
    terminal.status("working")

    assert screen.getvalue().count("working") == 1


def test_a_long_status_is_cut_to_the_width_of_the_terminal() -> None:
    screen = Screen(is_terminal=True)

    Terminal(screen).status("x" * 5000)

    assert screen.getvalue().count("x") < 5000


def test_a_reader_that_went_away_is_no_error() -> None:
    terminal = Terminal(Broken(is_terminal=False))

    terminal.line("nobody reads this")
