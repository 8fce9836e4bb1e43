"""Every error a user of Trygon can meet.

TrygonError
├── ServeError                        the face of Ray Serve's RayServeException
│   ├── DeploymentUnavailableError    no replica can take the request: failed, deleted, circuit open
│   │   └── PoisonRequestError        requests like this one have ended replicas
│   ├── ReplicaUnavailableError       the chosen replica cannot be reached
│   ├── BackPressureError             a bounded queue is full
│   │   └── QueueWaitError            at an ingress: with more than is answered in the time a request may wait
│   ├── SerializationError            an argument or result cannot travel between processes
│   ├── RequestCancelledError         the request was cancelled
│   ├── RequestTimeoutError           the request's time is over (also a TimeoutError)
│   ├── ConfigError                   a configuration file has mistakes (also a ValueError)
│   └── DeployError                   an application could not be deployed (also a RuntimeError)
│       └── RevisionConflictError     the application is not at the revision that the caller saw
├── ReplicaDiedError                  the replica died while the request was in work
├── TaskError                         user code raised; a sub-class of the user's own type is made for each
└── InstanceError                     no instance, it cannot be started, or it went away (also a RuntimeError)

Errors pickle: every argument reaches ``super().__init__``.
"""

from __future__ import annotations

__all__ = [
    "BackPressureError",
    "ConfigError",
    "DeployError",
    "DeploymentUnavailableError",
    "InstanceError",
    "PoisonRequestError",
    "QueueWaitError",
    "ReplicaDiedError",
    "ReplicaUnavailableError",
    "RequestCancelledError",
    "RequestTimeoutError",
    "RevisionConflictError",
    "SerializationError",
    "ServeError",
    "TaskError",
    "TrygonError",
]


class TrygonError(Exception):
    """The root of every error raised by Trygon itself."""


class ServeError(TrygonError):
    """Something asked of the serving layer cannot be done."""


class DeploymentUnavailableError(ServeError):
    """No replica of the deployment can take requests: it failed, was deleted, or never existed."""


class PoisonRequestError(DeploymentUnavailableError):
    """Requests like this one have ended several replicas, so this one was not sent to another.

    Args:
        deployment: The deployment whose replicas died.
        num_deaths: How many did since such a request was last answered.
        retry_after_s: Seconds until one is tried again.
    """

    def __init__(self, deployment: str = "", num_deaths: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(deployment, num_deaths, retry_after_s)
        self.deployment = deployment
        self.num_deaths = num_deaths
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return (
            f"requests like this one have ended {self.num_deaths} replicas of deployment {self.deployment!r}, so it "
            f"is not sent to another; it may be sent again in {self.retry_after_s:.0f} s, or to a mended revision"
        )


class ReplicaUnavailableError(ServeError):
    """The replica that was chosen for the request cannot be reached."""


class BackPressureError(ServeError):
    """The caller's queue for a deployment is full.

    Args:
        num_queued_requests: Requests waiting in this caller when the request was refused.
        max_queued_requests: The bound that was reached.
        status_code: The HTTP status an ingress answers with, 503 or 429.
        retry_after_s: Seconds to wait before another try, or None if unknown.
    """

    def __init__(
        self,
        num_queued_requests: int = 0,
        max_queued_requests: int = 0,
        status_code: int = 503,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(num_queued_requests, max_queued_requests, status_code, retry_after_s)
        self.num_queued_requests = num_queued_requests
        self.max_queued_requests = max_queued_requests
        self.status_code = status_code
        self.retry_after_s = retry_after_s

    @property
    def message(self) -> str:
        """One sentence for logs and HTTP bodies."""
        return (
            f"request dropped due to backpressure: {self.num_queued_requests} requests are queued, "
            f"max_queued_requests is {self.max_queued_requests}"
        )

    def __str__(self) -> str:
        return self.message


class QueueWaitError(BackPressureError):
    """The queue of an ingress holds as many requests as can be answered in the time a request may wait.

    Args:
        max_wait_s: That time; infinity when only the number is bounded.
        status_code: The HTTP status an ingress answers with, 503 or 429.
        retry_after_s: Seconds to wait before another try.
    """

    def __init__(
        self, max_wait_s: float = 1.0, status_code: int = 503, retry_after_s: float | None = None
    ) -> None:
        super().__init__(0, 0, status_code, retry_after_s)
        self.args = (max_wait_s, status_code, retry_after_s)
        self.max_wait_s = max_wait_s

    @property
    def message(self) -> str:
        """One sentence for logs and HTTP bodies."""
        if self.max_wait_s == float("inf"):
            return "request dropped due to backpressure: as many requests are queued as the ingress holds"
        return (
            "request dropped due to backpressure: as many requests are queued as are answered in "
            f"{self.max_wait_s:g} s"
        )


class SerializationError(ServeError, TypeError):
    """An argument or a result cannot be sent to another process."""


class RequestCancelledError(ServeError):
    """The request was cancelled by its caller, by its client going away, or by its deadline."""

    def __init__(self, request_id: str = "") -> None:
        super().__init__(request_id)
        self.request_id = request_id

    def __str__(self) -> str:
        return f"request {self.request_id} was cancelled" if self.request_id else "request was cancelled"


class RequestTimeoutError(ServeError, TimeoutError):
    """The request did not end within its time: that of its handle, of its caller's request, or of the ingress.

    What works on it is cancelled, and what has not begun never begins.
    """


class ReplicaDiedError(TrygonError):
    """The replica's process ended while the request was in work; the request may have had effects."""


class TaskError(TrygonError):
    """User code in another process raised.

    What a caller catches is a sub-class of this *and* of the type that was raised,
    so both ``except ValueError`` and ``except TaskError`` work.

    Attributes:
        cause: The user's exception, or None when it could not travel.
        remote_traceback: The traceback of the other process, as text.
    """

    cause: BaseException | None = None
    remote_traceback: str = ""


class DeployError(ServeError, RuntimeError):
    """An application could not be deployed; what ran before runs on."""


class RevisionConflictError(DeployError):
    """The application changed since the caller looked at it; nothing was done."""


class ConfigError(ServeError, ValueError):
    """A configuration file cannot be used; nothing was changed.

    Args:
        mistakes: One sentence each, beginning with file, line and key: ``serve.yaml:12: applications[0]: ...``.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(self.mistakes)


class InstanceError(TrygonError, RuntimeError):
    """There is no instance to talk to, it could not be started, or it went away."""
