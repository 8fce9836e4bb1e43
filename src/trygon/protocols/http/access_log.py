"""The access log: one line for each request, in Ray Serve's form, written in batches.

Lines are kept as values and formatted when they are written, at most every 0.2 s, by one `os.write`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable

from trygon.clock import Clock
from trygon.observability.log_file import note_written

__all__ = ["AccessLog"]

_FLUSH_S = 0.2
#: Formatting is about 1 us a line; more would hold the loop for over half a millisecond.
_FLUSH_LINES = 512
#: A reader that does not read (a full pipe) costs lines, never the loop.
_MAX_PENDING_BYTES = 4 * 1024 * 1024


class AccessLog:
    """Writes `INFO <time> ingress <id> <request id> -- GET / 200 1.2ms` lines to a file descriptor, or JSON.

    Args:
        fd: Where the lines go; stays the caller's.
        ingress_id: Which ingress this is.
        as_json: Whether each line is a JSON object with the fields of the other log lines.
        copy: Called with the same lines; must not raise.
    """

    def __init__(
        self,
        fd: int,
        ingress_id: str,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        *,
        as_json: bool = False,
        copy: Callable[[str], None] | None = None,
    ) -> None:
        self._as_json = as_json
        self._copy = copy
        self._fd = fd
        self._ingress_id = ingress_id
        self._loop = loop
        self._monotonic = clock.monotonic
        self._wall = clock.wall
        self._entries: list[tuple[str, str, str, int, float, float]] = []
        self._timer: asyncio.TimerHandle | None = None
        #: Bytes that a non-blocking descriptor did not take.
        self._rest = b""
        self._second = -1
        self._stamp = ""
        #: Lines given up because nobody reads.
        self.num_lost = 0

    def add(
        self, request_id: str, method: str, route: str, status: int, now: float, latency_s: float
    ) -> None:
        """Note one finished request; `now` is monotonic."""
        entries = self._entries
        entries.append((request_id, method, route, status, now, latency_s))
        if self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_S, self.flush)
        elif len(entries) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries, self._entries = self._entries, []
        to_wall = self._wall() - self._monotonic()
        lines = []
        for request_id, method, route, status, now, latency_s in entries:
            wall = now + to_wall
            second = int(wall)
            if second != self._second:
                self._second = second
                self._stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            if self._as_json:
                lines.append(self._json_line(wall, request_id, method, route, status, latency_s))
                continue
            lines.append(
                "INFO %s,%03d ingress %s %s -- %s %s %d %.1fms\n"
                % (
                    self._stamp,
                    int((wall - second) * 1000),
                    self._ingress_id,
                    request_id,
                    method,
                    route,
                    status,
                    latency_s * 1000,
                )
            )
        text = "".join(lines)
        if self._copy is not None and text:
            self._copy(text)
        self._write(text.encode("utf-8", "backslashreplace"), len(lines))

    def _json_line(
        self, wall: float, request_id: str, method: str, route: str, status: int, latency_s: float
    ) -> str:
        fields = {
            "levelname": "INFO",
            "asctime": f"{self._stamp},{int((wall - self._second) * 1000):03d}",
            "message": f"{method} {route} {status} {latency_s * 1000:.1f}ms",
            "component_name": "ingress",
            "component_id": self._ingress_id,
            "request_id": request_id,
            "route": route,
        }
        return json.dumps(fields) + "\n"

    def _write(self, data: bytes, num_lines: int) -> None:
        if len(self._rest) + len(data) > _MAX_PENDING_BYTES:
            self.num_lost += num_lines
            data = b""
        data = self._rest + data
        if not data:
            return
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            # A closed pipe or a full disk must not stop requests.
            self.num_lost += num_lines
            written = len(data)
        note_written(self._fd, written)
        self._rest = data[written:]
        if self._rest and self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_S, self.flush)

    def close(self) -> None:
        """Write what has gathered; take no more."""
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
