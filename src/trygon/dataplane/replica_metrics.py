"""Numbers of one replica: its requests by route, their stages, and what it took to start and to end it."""

from __future__ import annotations

from bisect import bisect_left
from typing import cast

from trygon.dataplane.slots import Slot, Slots
from trygon.dataplane.stamps import monotonic, seconds_since
from trygon.observability.metrics import REGISTRY, Cell, HistogramCell, stage_cell

__all__ = ["ReplicaMetrics"]

_ROUTE = ("application", "deployment", "replica", "route")
_REPLICA = ("application", "deployment", "replica")

_REQUESTS = REGISTRY.counter(
    "deployment_request_counter", "Requests that the replica finished.", _ROUTE, total="deployment_requests"
)
_ERRORS = REGISTRY.counter(
    "deployment_error_counter",
    "Requests that raised an exception in the replica.",
    _ROUTE,
    total="deployment_errors",
)
_LATENCY = REGISTRY.histogram(
    "deployment_processing_latency_ms",
    "Time of a request in the replica.",
    _ROUTE,
    scale=1000.0,
    total="deployment_latency_ms",
)
_MAX_LATENCY = REGISTRY.gauge(
    "deployment_max_processing_latency_ms", "Longest of the requests since the last publication.", _ROUTE
)
_ONGOING = REGISTRY.gauge("replica_processing_queries", "Requests in work in the replica.", _REPLICA)
_UTILIZATION = REGISTRY.gauge(
    "replica_utilization_percent",
    "Time that requests took since the last publication, in percent of what max_ongoing_requests allows.",
    _REPLICA,
)
_STARTS = REGISTRY.counter(
    "deployment_replica_starts", "Replicas that became ready.", _REPLICA, total="deployment_starts"
)
_BYTES = REGISTRY.counter(
    "transfer_bytes",
    "Bytes between callers and replicas, without what went through shared memory.",
    ("application", "deployment", "direction"),
)
_WASTED = REGISTRY.counter(
    "wasted_compute_seconds",
    "Time of requests in the replica whose answer nobody received: cancelled, late, or their client gone.",
    _REPLICA,
    total="deployment_wasted_seconds",
)
_HEALTH_FAILURES = REGISTRY.counter(
    "health_check_failures",
    "Health checks of the user's that failed.",
    _REPLICA,
    total="deployment_health_failures",
)


_DURATIONS = {
    "startup": REGISTRY.histogram(
        "replica_startup_latency_ms",
        "From the start of the process until it is ready.",
        _REPLICA[:2],
        scale=1000.0,
    ),
    "initialization": REGISTRY.histogram(
        "replica_initialization_latency_ms", "The user's constructor.", _REPLICA[:2], scale=1000.0
    ),
    "reconfigure": REGISTRY.histogram(
        "replica_reconfigure_latency_ms", "The user's reconfigure.", _REPLICA[:2], scale=1000.0
    ),
    "health_check": REGISTRY.histogram(
        "health_check_latency_ms", "The user's check_health.", _REPLICA[:2], scale=1000.0
    ),
    "shutdown": REGISTRY.histogram(
        "replica_shutdown_duration_ms", "From the order to leave until the end.", _REPLICA[:2], scale=1000.0
    ),
}


class _Route:
    """What one route of the replica had."""

    __slots__ = ("errors", "latency", "longest")

    def __init__(self, names: tuple[str, str, str], route: str) -> None:
        self.latency = cast(HistogramCell, _LATENCY.cell(*names, route))
        self.errors = 0
        self.longest = 0.0


class ReplicaMetrics:
    """Counts for one replica, on its loop's thread.

    Args:
        app_name: Its application.
        deployment: Its deployment.
        replica_tag: Names it.
    """

    def __init__(self, app_name: str, deployment: str, replica_tag: str) -> None:
        self._names = (app_name, deployment, replica_tag)
        self._routes: dict[str, _Route] = {}
        self._transfer = stage_cell("transfer", app_name, deployment)
        self._compute = stage_cell("compute", app_name, deployment)
        self._serialise = stage_cell("serialise", app_name, deployment)
        self._collected = monotonic()
        self._busy_s = 0.0

    def note(self, route: str, slot: Slot, began: float, *, is_error: bool) -> None:
        """Count a request that is over."""
        now = monotonic()
        latency_s = now - began
        found = self._routes.get(route)
        if found is None:
            found = self._routes[route] = _Route(self._names, route)
        # Written out here and below: a call for each of four histograms costs as much as they do.
        latency = found.latency
        latency.counts[bisect_left(latency.bounds, latency_s)] += 1
        latency.sum += latency_s
        if latency_s > found.longest:  # noqa: PLR1730 - `max` is a call
            found.longest = latency_s
        if is_error:
            found.errors += 1
        sent = slot.sent
        if sent:
            stage = self._transfer
            passed_s = seconds_since(sent, began)
            stage.counts[bisect_left(stage.bounds, passed_s)] += 1
            stage.sum += passed_s
            computed = slot.computed or now
            stage = self._compute
            passed_s = computed - began
            stage.counts[bisect_left(stage.bounds, passed_s)] += 1
            stage.sum += passed_s
            if slot.computed:
                stage = self._serialise
                passed_s = now - computed
                stage.counts[bisect_left(stage.bounds, passed_s)] += 1
                stage.sum += passed_s
        if REGISTRY.is_quiet:
            REGISTRY.wake()

    def took(self, what: str, seconds: float) -> None:
        """Observe a startup, initialization, reconfigure, health_check or shutdown."""
        _DURATIONS[what].cell(*self._names[:2]).observe(seconds)
        REGISTRY.wake()

    def started(self) -> None:
        """Count that the replica is ready."""
        cast(Cell, _STARTS.cell(*self._names)).value = 1
        REGISTRY.wake()

    def health_check_failed(self) -> None:
        """Count a failed health check."""
        _HEALTH_FAILURES.cell(*self._names).value += 1
        REGISTRY.wake()

    def collect(self, slots: Slots, transferred: tuple[int, int]) -> None:
        """Fill the families that are made from others; before each publication.

        Args:
            slots: The places of the replica.
            transferred: Bytes that came from callers, and that went to them.
        """
        names = self._names
        busy_s = 0.0
        for route, found in list(self._routes.items()):
            busy_s += found.latency.sum
            _REQUESTS.cell(*names, route).value = sum(found.latency.counts)
            _ERRORS.cell(*names, route).value = found.errors
            _MAX_LATENCY.cell(*names, route).value = found.longest * 1e3
            found.longest = 0.0
        _ONGOING.cell(*names).value = slots.ongoing
        _WASTED.cell(*names).value = slots.wasted_s
        now = monotonic()
        room_s = (now - self._collected) * slots.limit
        share = (busy_s - self._busy_s) / room_s if room_s > 0 else 0.0
        _UTILIZATION.cell(*names).value = min(share, 1.0) * 100
        self._collected, self._busy_s = now, busy_s
        if share:
            # What is told of the time since the last look must not stand after the last request.
            REGISTRY.wake()
        received, sent = transferred
        _BYTES.cell(*names[:2], "request").value = received
        _BYTES.cell(*names[:2], "response").value = sent

    def traffic(self) -> dict[tuple[str, str], tuple[int, list[int]]]:
        """Return the errors and the latency's counts since the beginning, for rates."""
        routes = list(self._routes.values())
        if not routes:
            return {}
        counts = [sum(column) for column in zip(*(route.latency.counts for route in routes), strict=True)]
        return {self._names[:2]: (sum(route.errors for route in routes), counts)}
