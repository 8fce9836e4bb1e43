"""One line for each finished request, kept back and written together: two writes a millisecond cost more than the lines."""

from __future__ import annotations

import json
from collections.abc import Callable

from trygon.observability.logs import (
    Component,
    LogContext,
    LogOptions,
    Stamp,
    json_fields,
    log_copy,
    write_all,
)

__all__ = ["AccessLog"]


class AccessLog:
    """Collects lines and writes them when the owner's loop has nothing better to do.

    The request path calls `http` or `call` only if `enabled`. The first line kept back asks
    `schedule` for a call of `flush`; a full buffer is written at once. Owned by one thread.

    Args:
        component: Which process speaks.
        options: Decide whether there are lines at all, and their encoding.
        wall: Tells the wall-clock time.
        schedule: Takes a callable and runs it soon: `loop.call_soon`, or a short `loop.call_later`.
        fd: Where lines go.
        max_lines: Lines kept back at most.
    """

    def __init__(
        self,
        component: Component,
        options: LogOptions,
        *,
        wall: Callable[[], float],
        schedule: Callable[[Callable[[], None]], object],
        fd: int = 2,
        max_lines: int = 512,
    ) -> None:
        self.enabled = options.writes_access_log
        self._component = component
        self._speaker = f"{component.name} {component.id}"
        self._is_json = options.encoding == "JSON"
        self._wall = wall
        self._schedule = schedule
        self._fd = fd
        self._max_lines = max_lines
        #: Gets the same lines.
        self._copy = log_copy()
        self._stamp = Stamp()
        self._lines: list[str] = []

    def http(self, method: str, status: int, latency_ms: float, context: LogContext) -> None:
        """Report an HTTP request: `GET /wine 200 12.3ms`."""
        self._add(f"{method} {context.route} {status} {latency_ms:.1f}ms", context)

    def call(self, method: str, outcome: str, latency_ms: float, context: LogContext) -> None:
        """Report a call by handle; the outcome is OK, ERROR or CANCELLED."""
        self._add(f"CALL {method} {outcome} {latency_ms:.1f}ms", context)

    def flush(self) -> None:
        """Write what was kept back."""
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            write_all(self._fd, text.encode("utf-8", "backslashreplace"))
            if self._copy is not None:
                self._copy.write_lines(text)

    def _add(self, message: str, context: LogContext) -> None:
        stamp = self._stamp(self._wall())
        if self._is_json:
            line = json.dumps(json_fields(self._component, context, "INFO", stamp, message)) + "\n"
        elif context.request_id:
            line = f"INFO {stamp} {self._speaker} {context.request_id} -- {message}\n"
        else:
            line = f"INFO {stamp} {self._speaker} -- {message}\n"
        lines = self._lines
        lines.append(line)
        if len(lines) >= self._max_lines:
            self.flush()
        elif len(lines) == 1:
            self._schedule(self.flush)
