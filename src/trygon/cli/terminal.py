"""What a person sees: lines, and below them one status line that is rewritten while something goes on."""

from __future__ import annotations

import threading
from typing import TextIO

import click

__all__ = ["Terminal"]

_CLEAR_LINE = "\r\x1b[2K"


class Terminal:
    """Writes whole lines from any thread.

    A reader that went away is no reason to stop serving: what cannot be written is dropped.

    Args:
        stream: Where to; colours and the status line only if it is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._status = ""
        self.is_interactive = stream.isatty()

    def line(self, text: str, *, colour: str | None = None, bold: bool = False) -> None:
        """Write a line (or several)."""
        self._write(self.paint(text, colour=colour, bold=bold) + "\n")

    def lines(self, texts: list[str]) -> None:
        """Write lines together."""
        self._write("".join(f"{text}\n" for text in texts))

    def status(self, text: str) -> None:
        """Replace the status line; an empty text removes it. Nothing without a terminal."""
        if not self.is_interactive or text == self._status:
            return
        with self._lock:
            before, self._status = self._status, text
            self._send((_CLEAR_LINE if before else "") + self._shown())

    def paint(self, text: str, *, colour: str | None = None, bold: bool = False) -> str:
        """Return `text` with colour codes, if this is a terminal."""
        if not self.is_interactive or not (colour or bold):
            return text
        return click.style(text, fg=colour, bold=bold or None)

    def _write(self, text: str) -> None:
        with self._lock:
            if self._status:
                text = f"{_CLEAR_LINE}{text}{self._shown()}"
            self._send(text)

    def _shown(self) -> str:
        if not self._status:
            return ""
        # A longer one would break into two lines, of which only the last can be cleared.
        import shutil

        return click.style(self._status[: shutil.get_terminal_size().columns - 1], dim=True)

    def _send(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return
