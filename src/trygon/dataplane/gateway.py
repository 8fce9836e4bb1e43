"""The seam between a network protocol and the routers: open a request, hear its answer.

A protocol (HTTP, later gRPC) decodes, calls a `Gateway`, encodes, and decides nothing else.
All methods are called on the event loop's thread and return at once.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from trygon.dataplane.messages import HttpMeta

__all__ = ["Failure", "Gateway", "ResponseSink", "RouteMatch", "Upstream"]


class RouteMatch(msgspec.Struct, frozen=True, gc=False):
    """The application that a path belongs to."""

    app_name: str
    #: As configured, for logs and metrics: "/", "/wine".
    route_prefix: str
    #: What the ASGI scope's root_path becomes (instance root_path + prefix without a trailing slash).
    root_path: str
    #: Deployment and revision the request goes to.
    deployment: str
    revision: int
    #: Whether its requests are written to the access log.
    access_log: bool = True


class Failure(msgspec.Struct, frozen=True, gc=False):
    """A request that got no answer from user code."""

    #: HTTP status: 408, 499 (cancelled), 500, 502 (replica died), 503, 429.
    status: int
    #: Text for the body; never a traceback.
    reason: str
    retry_after_s: float | None = None


class ResponseSink(Protocol):
    """Hears the answer of one request; implemented by a protocol's connection.

    Exactly one of these sequences is heard, and nothing after `Upstream.cancel`:
    `on_response(more=False)`; `on_response(more=True)`, then `on_data`... until one without MORE;
    or `on_failure`, which may also cut a begun response.
    """

    def on_response(self, status: int, flags: int, head: bytes, body: bytes) -> None:
        """Take the status, the header lines (each ending in CR LF, checked for CR, LF, NUL) and the first part.

        `flags` are FrameFlag bits: MORE (DATA follows), LENGTH (the head has content-length),
        UPGRADE (a websocket is accepted).
        """

    def on_data(self, data: bytes, flags: int) -> None:
        """Take more of the body (flags: MORE), or a websocket message (flags: MORE and TEXT, or CLOSE)."""

    def on_failure(self, failure: Failure) -> None:
        """The request failed; a begun response must be cut."""

    def on_writable(self) -> None:
        """`Upstream.send` may be called again after it returned False."""


class Upstream(Protocol):
    """One open request, seen from the protocol."""

    def send(self, data: bytes, flags: int) -> bool:
        """Send more of the request body (MORE unless last) or a websocket message (MORE|TEXT, MORE, or CLOSE).

        Returns False when the sender should stop reading from its client until `on_writable`.
        """

    def grant(self, size: int) -> None:
        """Say that `size` bytes of the response were handed on; call it when the client's buffer has room again.

        Every byte given to `on_response(more=True)` and `on_data` must be granted once, in lumps if liked.
        """

    def cancel(self) -> None:
        """Nobody waits any more: cancel the work. Nothing is heard afterwards."""


class Gateway(Protocol):
    """Where a protocol finds applications and sends requests."""

    def match(self, path: str) -> RouteMatch | None:
        """Return the application with the longest prefix of whole path segments, or None."""

    def routes(self) -> dict[str, str]:
        """Return route prefix -> application name, for /-/routes."""

    def health(self) -> tuple[int, str]:
        """Return the status and text of /-/healthz."""

    def full(self, route: RouteMatch) -> Failure | None:
        """Return how a request is refused for want of room, whatever it says; None when it may be opened."""

    def open(
        self, route: RouteMatch, meta: HttpMeta, body: bytes, *, more: bool, sink: ResponseSink
    ) -> Upstream:
        """Send a request; `more` says that body parts follow through `Upstream.send`.

        The sink may hear `on_failure` before this returns: a full queue answers at once.
        """
