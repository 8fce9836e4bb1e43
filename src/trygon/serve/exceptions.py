"""Errors, as `ray.serve.exceptions` names them."""

from __future__ import annotations

from typing import Any

from trygon.errors import (
    BackPressureError,
    DeployError,
    DeploymentUnavailableError,
    InstanceError,
    PoisonRequestError,
    ReplicaDiedError,
    ReplicaUnavailableError,
    RequestCancelledError,
    RequestTimeoutError,
    SerializationError,
    ServeError,
    TaskError,
)

__all__ = [
    "BackPressureError",
    "DeployError",
    "DeploymentUnavailableError",
    "InstanceError",
    "PoisonRequestError",
    "RayServeException",
    "ReplicaDiedError",
    "ReplicaUnavailableError",
    "RequestCancelledError",
    "RequestTimeoutError",
    "SerializationError",
    "ServeError",
    "TaskError",
    "gRPCStatusError",
]

#: The base of errors that Serve raises.
RayServeException = ServeError


class gRPCStatusError(ServeError):
    """User code failed after it chose a gRPC status.

    Args:
        original_exception: What user code raised.
        code: A ``grpc.StatusCode``, or None.
        details: Text for the client, or None.
    """

    def __init__(
        self, original_exception: BaseException, code: Any = None, details: str | None = None
    ) -> None:
        super().__init__(original_exception, code, details)
        self._original_exception = original_exception
        self._code = code
        self._details = details

    @property
    def original_exception(self) -> BaseException:
        """What user code raised."""
        return self._original_exception

    @property
    def grpc_code(self) -> Any:
        """The status code that user code set, or None."""
        return self._code

    @property
    def grpc_details(self) -> str | None:
        """The details that user code set, or None."""
        return self._details

    def __str__(self) -> str:
        return str(self._original_exception)
