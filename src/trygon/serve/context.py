"""Contexts of the running request and replica, as `ray.serve.context` names them."""

from __future__ import annotations

from trygon.dataplane.context import RequestContext, batch_context, request_context
from trygon.dataplane.replica_context import ReplicaContext, ReplicaID, ReplicaRank

__all__ = ["ReplicaContext", "ReplicaID", "ReplicaRank", "RequestContext", "get_request_context"]

_NO_REQUEST = RequestContext()

#: The context variable that Ray Serve's documentation tells users to read.
_serve_request_context = request_context


def get_request_context() -> RequestContext:
    """Return the request that the running code works on; every field is empty outside of one."""
    return request_context.get() or _NO_REQUEST


#: The name that Ray Serve's documentation gives it.
_get_serve_request_context = get_request_context


def _get_serve_batch_request_context() -> list[RequestContext]:
    """Return the requests whose items are in the running batch, in their order; empty outside of a batch."""
    return list(batch_context.get())
