"""A request from outside as user code sees it: a Starlette Request whose body is mostly here already."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.types import Message, Scope

from trygon.dataplane.messages import HttpMeta
from trygon.dataplane.results import from_json

__all__ = ["HttpRequest", "http_scope", "websocket_scope"]


def _asgi() -> dict[str, str]:
    """A new dict for each request: applications may change their scope."""
    return {"version": "3.0", "spec_version": "2.4"}


def _headers(meta: HttpMeta) -> list[tuple[bytes, bytes]]:
    """Return the request's headers with its id among them, also when the ingress made it."""
    headers = meta.headers
    for name, _ in headers:
        if name == b"x-request-id":
            return headers
    headers.append((b"x-request-id", meta.request_id.encode()))
    return headers


def http_scope(meta: HttpMeta, state: dict[str, Any]) -> dict[str, Any]:
    """Return the ASGI scope of an HTTP request."""
    return {
        "type": "http",
        "asgi": _asgi(),
        "http_version": meta.http_version,
        "server": meta.server,
        "client": meta.client,
        "scheme": meta.scheme,
        "method": meta.method,
        "root_path": meta.root_path,
        "path": meta.path,
        "raw_path": meta.raw_path,
        "query_string": meta.query,
        "headers": _headers(meta),
        "state": state.copy(),
    }


def websocket_scope(meta: HttpMeta, state: dict[str, Any]) -> dict[str, Any]:
    """Return the ASGI scope of a websocket request."""
    protocols = [
        token.strip().decode("latin-1")
        for name, value in meta.headers
        if name == b"sec-websocket-protocol"
        for token in value.split(b",")
    ]
    return {
        "type": "websocket",
        "asgi": _asgi(),
        "http_version": meta.http_version,
        "server": meta.server,
        "client": meta.client,
        "scheme": "wss" if meta.scheme == "https" else "ws",
        "root_path": meta.root_path,
        "path": meta.path,
        "raw_path": meta.raw_path,
        "query_string": meta.query,
        "headers": _headers(meta),
        "subprotocols": protocols,
        "state": state.copy(),
        # Lets an application refuse with a response of its own.
        "extensions": {"websocket.http.response": {}},
    }


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


class HttpRequest(Request):
    """A Starlette Request; one whose whole body arrived answers `body()` without waiting, and pickles."""

    def __init__(self, scope: Scope, receive: Any, body: bytes | None) -> None:
        super().__init__(scope, receive)
        if body is not None:
            self._body = body

    async def json(self) -> Any:
        """Return the body as JSON."""
        if not hasattr(self, "_json"):
            self._json = from_json(await self.body())
        return self._json

    def __reduce__(self) -> tuple[Any, ...]:
        body = getattr(self, "_body", None)
        if body is None:
            raise TypeError(
                "this request's body is still arriving; `await request.body()` before sending it to another deployment"
            )
        scope = {key: value for key, value in self.scope.items() if key not in ("app", "router", "endpoint")}
        return _rebuild, (scope, body)


def _rebuild(scope: dict[str, Any], body: bytes) -> HttpRequest:
    return HttpRequest(scope, _nothing_more, body)
