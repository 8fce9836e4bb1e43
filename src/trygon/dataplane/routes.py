"""Which application a path belongs to, and the gateway that protocols call.

Longest prefix of whole path segments: "/a" takes "/a" and "/a/b", never "/ab".
"""

from __future__ import annotations

from collections.abc import Sequence

from trygon.dataplane.fairness import PLAIN
from trygon.dataplane.gateway import Failure, ResponseSink, RouteMatch, Upstream
from trygon.dataplane.http_call import HttpCall
from trygon.dataplane.messages import HttpMeta
from trygon.dataplane.router import Router
from trygon.errors import DeploymentUnavailableError
from trygon.spec.routing import RoutingTable

__all__ = ["RouterGateway", "match_prefix"]

#: Paths whose application is remembered; a scan of all prefixes costs more than the request's parsing.
MATCH_CACHE_SIZE = 4096
#: Clients choose paths, so a long one is matched anew instead of kept.
MAX_CACHED_PATH_CHARS = 256


def match_prefix(prefixes: dict[str, RouteMatch], lengths: Sequence[int], path: str) -> RouteMatch | None:
    """Return the match with the longest prefix of whole segments of `path`, or None.

    Args:
        prefixes: Keys without a trailing slash; "" is the root and takes every path.
        lengths: The different lengths of the keys, longest first.
        path: Starts with "/".
    """
    size = len(path)
    for length in lengths:
        # Only lengths that a prefix has: a path of a thousand slashes costs no more than another.
        if length < size and length and path[length] != "/":
            continue
        found = prefixes.get(path[:length]) if length <= size else None
        if found is not None:
            return found
    return None


class _RefusedUpstream:
    """A request that failed before it had an upstream."""

    __slots__ = ()

    def send(self, data: bytes, flags: int) -> bool:
        return True

    def grant(self, size: int) -> None:
        return

    def cancel(self) -> None:
        return


_REFUSED = _RefusedUpstream()
#: Of a request whose time is over: 0 is no limit.
_NO_TIME_S = 1e-6


class RouterGateway:
    """Implements `gateway.Gateway` over a router."""

    __slots__ = ("_cache", "_has_had_routes", "_lengths", "_prefixes", "_root_path", "_router")

    def __init__(self, router: Router, root_path: str = "") -> None:
        self._router = router
        self._root_path = root_path.rstrip("/")
        self._prefixes: dict[str, RouteMatch] = {}
        #: Healthy from the first route on, though every application may be deleted later.
        self._has_had_routes = False
        self._lengths: list[int] = []
        self._cache: dict[str, RouteMatch | None] = {}

    def apply(self, table: RoutingTable) -> None:
        """Route by `table`; call it after the router took the table."""
        self._prefixes = {}
        for app in table.applications:
            if app.route_prefix is not None:
                prefix = app.route_prefix.rstrip("/")
                self._prefixes[prefix] = RouteMatch(
                    app_name=app.app_name,
                    route_prefix=app.route_prefix,
                    root_path=self._root_path + prefix,
                    deployment=app.ingress,
                    revision=app.revision,
                    access_log=app.access_log,
                )
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        self._has_had_routes = self._has_had_routes or bool(self._prefixes)
        self._cache.clear()

    # ---- Gateway

    def match(self, path: str) -> RouteMatch | None:
        cache = self._cache
        try:
            return cache[path]
        except KeyError:
            pass
        found = match_prefix(self._prefixes, self._lengths, path)
        if len(path) <= MAX_CACHED_PATH_CHARS:
            if len(cache) >= MATCH_CACHE_SIZE:
                cache.clear()
            cache[path] = found
        return found

    def routes(self) -> dict[str, str]:
        return {match.route_prefix: match.app_name for match in self._prefixes.values()}

    def health(self) -> tuple[int, str]:
        if not self._router.table.version:
            return 503, "Route table is not populated yet."
        if not self._has_had_routes:
            return 503, "Route table is not populated yet."
        return 200, "success"

    def full(self, route: RouteMatch) -> Failure | None:
        pool = self._router.known_pool(route.app_name, route.deployment, route.revision)
        if pool is None or pool.gate is None or not pool.waiting or pool.desk is not None:
            return None
        return pool.gate.full(pool)

    def open(
        self, route: RouteMatch, meta: HttpMeta, body: bytes, *, more: bool, sink: ResponseSink
    ) -> Upstream:
        try:
            pool = self._router.pool(route.app_name, route.deployment, route.revision)
        except DeploymentUnavailableError as error:
            sink.on_failure(Failure(503, str(error)))
            return _REFUSED
        if self._root_path:
            # ASGI: the path holds the root path, which a proxy in front has cut off.
            meta.path = self._root_path + meta.path
            meta.raw_path = self._root_path.encode() + meta.raw_path
        gate = pool.gate
        if gate is None or not (meta.deadline or gate.is_fair or pool.waiting):
            call = HttpCall(pool, meta, body, more, sink)
            pool.submit(call)
            return call
        ticket = gate.ticket(meta) if gate.is_fair else PLAIN
        if pool.waiting:
            left_s = max(meta.deadline - self._router.loop.time(), _NO_TIME_S) if meta.deadline else 0.0
            failure = gate.refusal(pool, left_s, ticket)
            if failure is not None:
                sink.on_failure(failure)
                return _REFUSED
        call = HttpCall(pool, meta, body, more, sink)
        call.ticket = ticket
        call.due = meta.deadline
        pool.submit(call)
        return call
