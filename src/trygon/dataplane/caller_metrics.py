"""Numbers of a caller: what it sent to which deployment, and how long requests waited for a replica.

A request that is sent at once costs one addition; only one that waits is looked at by the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from trygon.dataplane.admission import Pace
from trygon.dataplane.lines import Lines
from trygon.dataplane.stamps import renew_stamps
from trygon.observability.metrics import REGISTRY, Cell, HistogramCell, stage_cell

__all__ = ["CallerCollector", "CallerStats", "ReadCallers"]

_CALLER = ("application", "deployment", "handle")

_REQUESTS = REGISTRY.counter(
    "num_router_requests", "Requests that this caller had for the deployment.", _CALLER
)
_CALLS = REGISTRY.counter("handle_request_counter", "Calls through handles of this process.", _CALLER)
_QUEUED = REGISTRY.gauge("deployment_queued_queries", "Requests that wait in this caller.", _CALLER)
_ONGOING = REGISTRY.gauge(
    "num_ongoing_requests_at_replicas", "Requests of this caller in work in replicas.", _CALLER
)
_FULFILLMENT = REGISTRY.histogram(
    "request_router_fulfillment_time_ms",
    "Time until a request had a replica.",
    ("application", "deployment"),
    scale=1000.0,
)


class CallerStats:
    """What one caller had for one deployment, all revisions together; changed on the loop's thread."""

    __slots__ = (
        *("_fulfillment", "_lines", "_num_gone", "_num_shown", "_queue"),
        *("num_immediate", "num_queued", "pace"),
    )

    def __init__(self, app_name: str, deployment: str) -> None:
        #: Requests that had a replica at once.
        self.num_immediate = 0
        #: Requests that had to wait.
        self.num_queued = 0
        #: How many are served a second.
        self.pace = Pace()
        #: Where threads call by themselves, and the calls of those that are gone.
        self._lines: list[Lines] = []
        self._num_gone = 0
        self._num_shown = 0
        self._queue = stage_cell("queue", app_name, deployment)
        self._fulfillment = cast(HistogramCell, _FULFILLMENT.cell(app_name, deployment))

    def waited(self, seconds: float) -> None:
        """Count a request that leaves the queue for a replica."""
        self._queue.observe(seconds)
        self._fulfillment.observe(seconds)

    def watch(self, lines: Lines) -> None:
        """Count the calls of threads to one more replica."""
        self._lines.append(lines)

    def num_direct(self) -> int:
        """Return the calls that threads sent by themselves."""
        for lines in [lines for lines in self._lines if lines.is_over]:
            self._lines.remove(lines)
            self._num_gone += lines.num_calls
        return self._num_gone + sum(lines.num_calls for lines in self._lines)

    def show_immediate(self, num_direct: int) -> None:
        """Let the histograms have the requests that did not wait; `num_direct` were sent by threads."""
        new = self.num_immediate + num_direct - self._num_shown
        self._num_shown += new
        self._queue.observe_zeros(new)
        self._fulfillment.observe_zeros(new)


ReadCallers = Callable[[], dict[tuple[str, str], tuple[CallerStats, int, int]]]


class CallerCollector:
    """Fills the families of one process's router.

    Args:
        read: Returns for each deployment (application, name): its stats, the requests that wait, and those in
            work.
        caller: Names this process in its series.
        is_ingress: Its requests come from outside, not from handles.
    """

    def __init__(self, read: ReadCallers, caller: str, *, is_ingress: bool = False) -> None:
        self._read = read
        self._caller = caller
        self._is_ingress = is_ingress

    def __call__(self) -> None:
        renew_stamps()
        for (app_name, deployment), (stats, waiting, ongoing) in self._read().items():
            labels = (app_name, deployment, self._caller)
            num_direct = stats.num_direct()
            stats.show_immediate(num_direct)
            count = stats.num_immediate + stats.num_queued + num_direct
            cast(Cell, _REQUESTS.cell(*labels)).value = count
            if not self._is_ingress:
                cast(Cell, _CALLS.cell(*labels)).value = count
            cast(Cell, _QUEUED.cell(*labels)).value = waiting
            cast(Cell, _ONGOING.cell(*labels)).value = ongoing
            if waiting or ongoing:
                # Their end is no news of its own, so somebody must look again.
                REGISTRY.wake()
