"""When a blocked thread calls by itself, over a line, and when it leaves that to the loop."""

from __future__ import annotations

import contextlib
import threading

from trygon.dataplane.handle_calls import UnaryCall
from trygon.dataplane.lines import MAX_REQUEST_BYTES, WINDOW_S, Line, LineCall
from trygon.dataplane.pool import Pool
from trygon.dataplane.runtime import Runtime

__all__ = ["begin_on_line", "hand_over", "wait_on_line"]


def begin_on_line(runtime: Runtime, call: UnaryCall, pool: Pool | None) -> bool:
    """Send `call` from this thread; False when it has to go through the loop."""
    if not runtime.waits.is_blocking or pool is None or _needs_loop(pool, call):
        return False
    line = runtime.waits.line
    if line is not None and line.thread == threading.get_ident():
        previous = line.call
        if previous is not None:
            # This thread has several calls under way: the loop can wait for all of them at once.
            hand_over(runtime, previous)
            return False
    payload = call.payload
    if payload is None or payload.segment is not None or len(payload.body) > MAX_REQUEST_BYTES:
        return False
    # The list may be changed by the loop's thread at any time, a copy may not.
    link = pool.place(pool.links[:], call.model_id)
    if link is None or link.is_suspect:
        return False
    call.pool = pool
    line = link.lines.take(call)
    if line is None:
        return False
    runtime.waits.line = line
    if line.start(call):
        return True
    call.on_moved(pool)
    return False


def _needs_loop(pool: Pool, call: UnaryCall) -> bool:
    if pool.waiting or pool.returned or pool.desk is not None or pool.router is not None:
        # A router of its own says who takes a call.
        return True
    if pool.targets is not None and pool.targets.load_period_s:
        # What is on a line nobody counts.
        return True
    # The first request for a model asks the replicas for theirs, which is the loop's work.
    return bool(call.model_id) and pool.models is None


def wait_on_line(runtime: Runtime, call: UnaryCall, line: Line, timeout_s: float | None) -> float | None:
    """Read the answer of `call` in this thread for a moment; return what is left of `timeout_s`."""
    window_s = WINDOW_S if timeout_s is None else min(max(timeout_s, 0.0), WINDOW_S)
    if line.read(call, window_s) or call.outcome.is_done:
        return timeout_s
    hand_over(runtime, call)
    return None if timeout_s is None else max(timeout_s - window_s, 0.0)


def hand_over(runtime: Runtime, call: LineCall) -> None:
    """Let the loop read the answer of `call`, if it is on a line that no thread reads."""
    line = call.line
    if line is not None and runtime.is_alive:
        runtime.waits.is_blocking = False
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            runtime.loop.call_soon_threadsafe(line.adopt, call)
