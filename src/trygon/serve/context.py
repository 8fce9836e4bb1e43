"""Contexts of the running request and replica, as `ray.serve.context` names them."""

from __future__ import annotations

from trygon.dataplane.context import RequestContext, batch_context, request_context
from trygon.dataplane.replica_context import ReplicaContext, ReplicaID, ReplicaRank
from trygon.dataplane.stamps import monotonic

__all__ = [
    "ReplicaContext",
    "ReplicaID",
    "ReplicaRank",
    "RequestContext",
    "get_request_context",
    "get_time_remaining",
]

_NO_REQUEST = RequestContext()

#: The context variable that Ray Serve's documentation tells users to read.
_serve_request_context = request_context


def get_request_context() -> RequestContext:
    """Return the request that the running code works on; every field is empty outside of one."""
    return request_context.get() or _NO_REQUEST


def get_time_remaining() -> float | None:
    """Return the seconds that the running request may still take; None without a limit, 0 when it is late.

    For code that can do with less: a smaller model, fewer candidates. The limit is the shortest of the ingress's
    `request_timeout_s`, the client's `X-Request-Timeout-Seconds` and the `timeout_s` of every handle on the way
    here. Not an accessor of Ray Serve's.
    """
    request = request_context.get()
    if request is None or not request.deadline:
        return None
    return max(request.deadline - monotonic(), 0.0)


#: The name that Ray Serve's documentation gives it.
_get_serve_request_context = get_request_context


def _get_serve_batch_request_context() -> list[RequestContext]:
    """Return the requests whose items are in the running batch, in their order; empty outside of a batch."""
    return list(batch_context.get())
