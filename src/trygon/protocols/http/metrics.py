"""Numbers of an ingress process: requests by route, method and status, and its connections."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple, cast

from trygon.dataplane.gateway import RouteMatch
from trygon.dataplane.stamps import SAMPLE_BUDGET, SAMPLE_MASK
from trygon.observability.metrics import REGISTRY, HistogramCell, stage_cell

__all__ = ["ConnectionCounts", "IngressMetrics"]

_LABELS = ("route", "method", "application", "status_code")
_ERROR_LABELS = ("route", "method", "application", "error_code")

_REQUESTS = REGISTRY.counter("num_http_requests", "HTTP requests that were answered.", _LABELS)
_ERRORS = REGISTRY.counter(
    "num_http_error_requests", "HTTP requests answered with 400 or above.", _ERROR_LABELS
)
_DEPLOYMENT_ERRORS = REGISTRY.counter(
    "num_deployment_http_error_requests",
    "HTTP requests that a deployment answered with 400 or above.",
    ("deployment", *_ERROR_LABELS),
)
_LATENCY = REGISTRY.histogram(
    "http_request_latency_ms",
    "From the complete head of an HTTP request until its answer is written.",
    _LABELS,
    scale=1000.0,
)
_ONGOING = REGISTRY.gauge("num_ongoing_http_requests", "HTTP requests in work in an ingress.", ("proxy",))
_CONNECTIONS = REGISTRY.gauge(
    "http_connections", "Open connections of an ingress, websockets too.", ("proxy",)
)
_WEBSOCKETS = REGISTRY.gauge("http_websockets", "Open websockets of an ingress.", ("proxy",))
_SHED = REGISTRY.counter("http_connections_shed", "Connections closed to make room.", ("proxy",))
_REFUSED = REGISTRY.counter("http_connections_refused", "Newcomers for which there was no room.", ("proxy",))

#: Clients may send any word as a method.
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))


class ConnectionCounts(NamedTuple):
    """The connections of an ingress."""

    open: int
    #: With a request in work.
    active: int
    websockets: int
    #: So far: closed to make room, and refused for want of it.
    shed: int
    refused: int


class _Answered:
    """What requests of one route, method and status had."""

    __slots__ = ("accept", "deployment", "labels", "latency")

    def __init__(self, route: RouteMatch | None, method: str, status: int) -> None:
        self.deployment = route.deployment if route is not None else ""
        app_name = route.app_name if route is not None else ""
        # Clients choose paths: those of no application are one route.
        prefix = route.route_prefix if route is not None else ""
        self.labels = (prefix, method if method in _METHODS else "OTHER", app_name, str(status))
        self.latency = cast(HistogramCell, _LATENCY.cell(*self.labels))
        #: None for a request of no application.
        self.accept = stage_cell("accept", app_name, self.deployment) if route is not None else None


class IngressMetrics:
    """Counts for one ingress, on its loop's thread.

    Args:
        ingress_id: Which ingress this is.
        has_stages: Whether the accept stage is measured.
    """

    def __init__(self, ingress_id: str, *, has_stages: bool = True) -> None:
        self.has_stages = has_stages
        self._ingress_id = ingress_id
        self._answered: dict[tuple[str, str, str, int], _Answered] = {}
        #: The request before, and where it was counted: most are like it.
        self._last: tuple[RouteMatch | None, str, int] = (None, "", 0)
        self._last_found: _Answered | None = None
        #: What is left of the budget of the accept stage; below zero, how much was wanted beyond it.
        self._left = SAMPLE_BUDGET

    def note(
        self, route: RouteMatch | None, method: str, status: int, latency_s: float, accept_s: float
    ) -> None:
        """Count an answered request."""
        last_route, last_method, last_status = self._last
        found = self._last_found
        if route is not last_route or status != last_status or method != last_method or found is None:
            found = self._find(route, method, status)
        latency = found.latency
        latency.counts[bisect_left(latency.bounds, latency_s)] += 1
        latency.sum += latency_s
        if self.has_stages:
            self._left = left = self._left - 1
            if (left >= 0 or not left & SAMPLE_MASK) and found.accept is not None:
                accept = found.accept
                accept.counts[bisect_left(accept.bounds, accept_s)] += 1
                accept.sum += accept_s
        if REGISTRY.is_quiet:
            REGISTRY.wake()

    def _find(self, route: RouteMatch | None, method: str, status: int) -> _Answered:
        if route is None:
            key = ("", "", method, status)
        else:
            key = (route.app_name, route.route_prefix, method, status)
        found = self._answered.get(key)
        if found is None:
            found = self._new(key, route)
        self._last, self._last_found = (route, method, status), found
        return found

    def _new(self, key: tuple[str, str, str, int], route: RouteMatch | None) -> _Answered:
        method, status = key[2:]
        if method not in _METHODS:
            # One entry for all of them, however many words there are.
            key = (*key[:2], "OTHER", status)
            found = self._answered.get(key)
            if found is not None:
                return found
        made = self._answered[key] = _Answered(route, method, status)
        return made

    def collect(self, connections: ConnectionCounts) -> None:
        """Fill the families that are made from others; before each publication."""
        self._left = SAMPLE_BUDGET
        for found in self._answered.values():
            count = sum(found.latency.counts)
            _REQUESTS.cell(*found.labels).value = count
            if found.labels[3] >= "400":
                _ERRORS.cell(*found.labels).value = count
                if found.deployment:
                    _DEPLOYMENT_ERRORS.cell(found.deployment, *found.labels).value = count
        proxy = self._ingress_id
        _ONGOING.cell(proxy).value = connections.active
        _CONNECTIONS.cell(proxy).value = connections.open
        _WEBSOCKETS.cell(proxy).value = connections.websockets
        _SHED.cell(proxy).value = connections.shed
        _REFUSED.cell(proxy).value = connections.refused

    def traffic(self) -> dict[tuple[str, str], tuple[int, list[int]]]:
        """Return for each application the answers from 500 up and the latency's counts, for rates."""
        totals: dict[tuple[str, str], tuple[int, list[int]]] = {}
        for found in self._answered.values():
            _, _, app_name, status = found.labels
            if app_name:
                errors, counts = totals.get((app_name, ""), (0, [0] * len(found.latency.counts)))
                errors += sum(found.latency.counts) if status >= "500" else 0
                added = [a + b for a, b in zip(counts, found.latency.counts, strict=True)]
                totals[app_name, ""] = (errors, added)
        return totals
