"""Limits and timeouts of the HTTP front, as one frozen value."""

from __future__ import annotations

import msgspec

__all__ = ["HttpSettings"]


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How strict, how patient and how large the HTTP front is; every default is safe."""

    # ---- sizes

    #: Request line, header lines and the empty line together; 431 beyond.
    max_head_bytes: int = 65536
    #: 431 beyond.
    max_headers: int = 128
    #: Request target; 414 beyond.
    max_target_bytes: int = 16384
    #: Whole body, whatever its coding; 413 beyond. None: bodies are streamed, so their size needs no limit.
    max_body_bytes: int | None = None
    #: A body up to this size reaches the replica in one piece; a larger one is streamed after it.
    body_buffer_bytes: int = 262144
    #: Bodies being collected, all connections together; beyond it the oldest incomplete request goes.
    max_buffered_bytes: int = 268435456
    #: Bytes read ahead of the request in work before reading pauses.
    max_pipelined_bytes: int = 65536
    #: A websocket message; 1009 beyond.
    max_message_bytes: int = 16777216

    # ---- patience, in seconds

    #: From accept, or from the first byte of a later request, to the complete head.
    header_timeout_s: float = 10.0
    #: A body must grow by `min_body_bytes` in each such span.
    body_timeout_s: float = 10.0
    min_body_bytes: int = 512
    #: Between two requests on one connection.
    keep_alive_timeout_s: float = 90.0
    #: A client that takes nothing of its answer for this long is cut.
    write_timeout_s: float = 30.0
    #: For the whole answer; 0 is no limit.
    request_timeout_s: float = 0.0
    #: Websocket: a ping after this long, and the connection is cut when nothing came back for as long again.
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    #: Websocket: from our close frame to the peer's.
    close_timeout_s: float = 10.0

    #: All of the above but `request_timeout_s` (0.05 s) are exact to twice this.
    sweep_s: float = 1.0

    # ---- connections

    #: None: from RLIMIT_NOFILE less a reserve, at most 20,000.
    max_connections: int | None = None

    #: Answer /-/healthz, /-/routes and OPTIONS * here; False leaves every path to the gateway.
    own_paths: bool = True

    # ---- names and logging

    session_id_header: str = "x-session-id"
    #: A line for each request, also of those that no route takes.
    access_log: bool = False
    #: A line for each request whose route asks for it, whatever `access_log` says.
    access_log_by_route: bool = False
    #: Whether its lines are JSON objects.
    access_log_as_json: bool = False
    #: Shown in each access log line.
    ingress_id: str = "0"
    scheme: str = "http"
