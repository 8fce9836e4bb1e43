"""The routes of the admin API, as a table: what there is, and what may be asked without a token. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

__all__ = ["ROUTES", "Found", "Route", "find_route"]


class Route(NamedTuple):
    """One path and the methods that it takes."""

    #: Segments in braces stand for any one segment.
    path: str
    methods: tuple[str, ...]
    #: Whether its GET needs no token while only this machine can connect.
    open_on_loopback: bool = False


class Found(NamedTuple):
    """The route of a path, and the application and the deployment that the path names."""

    route: Route
    name: str = ""
    deployment: str = ""


APPLICATIONS: Final = Route("/api/serve/applications/", ("GET", "PUT", "DELETE"))
APPLICATION: Final = Route("/api/serve/applications/{name}", ("GET", "PUT", "DELETE"))
HISTORY: Final = Route("/api/serve/applications/{name}/history", ("GET",))
UNDO: Final = Route("/api/serve/applications/{name}/undo", ("POST",))
#: Ray Serve's, for external scalers.
SCALE: Final = Route("/api/v1/applications/{name}/deployments/{deployment}/scale", ("POST",))
HEALTH: Final = Route("/-/healthz", ("GET",), open_on_loopback=True)
METRICS: Final = Route("/metrics", ("GET",), open_on_loopback=True)

ROUTES: Final = (APPLICATIONS, APPLICATION, HISTORY, UNDO, SCALE, HEALTH, METRICS)


def find_route(raw_path: bytes) -> Found | None:
    """Return the route of a path as it was sent; a slash at the end changes nothing.

    Segments are split before they are decoded, so an application's name may hold an escaped slash.
    """
    segments = raw_path.removesuffix(b"/").split(b"/")
    for route in ROUTES:
        wanted = route.path.removesuffix("/").split("/")
        if len(wanted) != len(segments):
            continue
        names = []
        for pattern, segment in zip(wanted, segments, strict=True):
            if pattern.startswith("{") and segment:
                names.append(unquote_to_bytes(segment).decode("utf-8", "replace"))
            elif pattern.encode() != segment:
                break
        else:
            return Found(route, *names)
    return None
