"""What is known of the request that the running code works on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from trygon.dataplane.stamps import monotonic
from trygon.errors import RequestTimeoutError

__all__ = ["RequestContext", "batch_context", "request_context"]


class RequestContext:
    """One request, as seen by the code that works on it.

    Read by user code through `trygon.serve.context`; children inherit request_id, route, app_name and deadline.
    """

    __slots__ = (
        "_has_ended",
        "_internal_request_id",
        "_on_end",
        "app_name",
        "children",
        "deadline",
        "grpc_context",
        "is_http_request",
        "multiplexed_model_id",
        "request_id",
        "route",
        "session_id",
    )

    def __init__(
        self,
        route: str = "",
        request_id: str = "",
        app_name: str = "",
        multiplexed_model_id: str = "",
        session_id: str = "",
        *,
        is_http_request: bool = False,
    ) -> None:
        self.route = route
        self.request_id = request_id
        self._internal_request_id = request_id
        self.app_name = app_name
        self.multiplexed_model_id = multiplexed_model_id
        self.session_id = session_id
        self.grpc_context: Any = None
        self.is_http_request = is_http_request
        #: When its time is over, in seconds of the machine's monotonic clock; 0 is never.
        self.deadline = 0.0
        #: Child calls that have not ended, so that cancelling this request cancels them; made when first needed.
        self.children: set[Any] | None = None
        self._has_ended = False
        #: What is to be called when the request has ended; made when first needed.
        self._on_end: list[Callable[[], object]] | None = None

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return 0.0 < self.deadline <= monotonic()

    def refuse_late(self) -> None:
        """Do not let code begin whose answer nobody waits for.

        Raises:
            RequestTimeoutError: The request's time is over.
        """
        if self.is_late:
            raise RequestTimeoutError("the time of the request was over before it began")

    def cancel_children(self) -> None:
        """Cancel every child call that has not ended."""
        for call in list(self.children or ()):
            call.cancel()

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the request has ended; now, if it has already."""
        if self._has_ended:
            callback()
        elif self._on_end is None:
            self._on_end = [callback]
        else:
            self._on_end.append(callback)

    def end(self) -> None:
        """Hear from the replica that nothing works on the request any more."""
        self._has_ended = True
        if self._on_end is not None:
            callbacks, self._on_end = self._on_end, None
            for callback in callbacks:
                callback()

    def __repr__(self) -> str:
        return f"RequestContext(request_id={self.request_id!r}, route={self.route!r}, app_name={self.app_name!r})"


#: The request that the running task or worker thread works on.
request_context: ContextVar[RequestContext | None] = ContextVar("trygon_request", default=None)

#: The requests whose items are in the batch that the running code works on; empty outside of a batch.
batch_context: ContextVar[Sequence[RequestContext]] = ContextVar("trygon_batch", default=())
