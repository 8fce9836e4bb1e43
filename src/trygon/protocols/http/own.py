"""Answers of the ingress itself: /-/healthz, /-/routes, OPTIONS *, and "no such path"."""

from __future__ import annotations

from typing import Final

import msgspec

from trygon.dataplane.gateway import Gateway
from trygon.protocols.http.head import RequestHead

__all__ = ["own_answer"]

_TEXT: Final = b"content-type: text/plain; charset=utf-8\r\n"
_JSON: Final = b"content-type: application/json\r\n"
_ALLOW: Final = b"allow: GET, HEAD\r\n"
_UNPOPULATED: Final = "Route table is not populated yet."
#: Routes named in a 404; more would make the text a page.
_MAX_LISTED: Final = 20


def own_answer(head: RequestHead, gateway: Gateway) -> tuple[int, bytes, bytes]:
    """Return status, body and header lines for a request that no application takes."""
    path = head.path
    if path == "*":
        return 200, b"", b"allow: *\r\n"
    if head.is_own and head.method not in ("GET", "HEAD"):
        return 405, b"Method Not Allowed", _TEXT + _ALLOW
    if path == "/-/healthz":
        status, text = gateway.health()
        return status, text.encode(), _TEXT
    routes = gateway.routes()
    if not routes:
        status, text = gateway.health()
        if status != 200:
            return 503, (text or _UNPOPULATED).encode(), _TEXT
    if path == "/-/routes":
        return 200, msgspec.json.encode(routes), _JSON
    host = head.block.host.decode("ascii") or "localhost"
    names = sorted(routes)
    listed = ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")
    text = "Path '%s' not found. Ping http://%s/-/routes for available routes. Routes: %s." % (
        head.raw_path.decode("ascii"),
        host,
        listed or "none",
    )
    return 404, text.encode(), _TEXT
