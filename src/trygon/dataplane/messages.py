"""Heads of request frames: what travels beside the body."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from trygon.dataplane.payloads import PayloadMeta

__all__ = ["CallMeta", "ErrorKind", "Evidence", "HttpMeta"]


class HttpMeta(msgspec.Struct, array_like=True, gc=False):
    """One request from outside, parsed and checked; becomes an ASGI scope in the replica."""

    method: str
    #: Percent-decoded, the route prefix included.
    path: str
    raw_path: bytes
    query: bytes
    #: Names in lower case, order kept.
    headers: list[tuple[bytes, bytes]]
    request_id: str
    #: The route prefix without a trailing slash ("" for "/"), the instance's root_path in front.
    root_path: str = ""
    #: The application's route prefix as shown in logs and metrics.
    route: str = "/"
    http_version: str = "1.1"
    scheme: str = "http"
    client: tuple[str, int] | None = None
    server: tuple[str, int] | None = None
    is_websocket: bool = False
    #: When its time is over, in seconds of the machine's monotonic clock; 0 is never.
    deadline: float = 0.0
    model_id: str = ""
    session_id: str = ""


class CallMeta(msgspec.Struct, array_like=True, gc=False):
    """One call through a handle."""

    method: str
    request_id: str = ""
    route: str = ""
    app_name: str = ""
    model_id: str = ""
    session_id: str = ""
    #: When its time is over, in seconds of the machine's monotonic clock; 0 is never.
    deadline: float = 0.0
    #: How the body is laid out; None is a pickle alone.
    payload: PayloadMeta | None = None
    result_serialization: str = "cloudpickle"


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """What a caller can say of a request whose replica died; never travels."""

    #: Fingerprint of what was asked; None where that cannot be told (a websocket, one replica of several).
    kind: bytes | None
    #: Whether it may be sent to another replica: asked twice it does no more than once, and all of it is here.
    is_retryable: bool
    has_begun: bool


class ErrorKind(IntEnum):
    """Why a stream ended without an answer; the `status` field of an ERROR frame."""

    TASK = 1  #: user code raised; the payload is a pickled (exception or None, type name, text, traceback)
    CANCELLED = 2  #: cancelled by the caller or a deadline
    NO_SUCH_METHOD = 3  #: payload: text
    BAD_REQUEST = 4  #: arguments or result cannot be (un)pickled; payload: text
    TIMEOUT = 5  #: its time was over before it began
    UNAVAILABLE = 6  #: the deployment cannot serve; payload: text
    WRONG_CALL = 7  #: a generator without stream=True, or the other way round; payload: text
