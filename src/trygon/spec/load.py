"""What callers tell of the load: the numbers that autoscaling goes by."""

from __future__ import annotations

import msgspec

__all__ = ["DeploymentLoad"]


class DeploymentLoad(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One deployment as one caller has it, over the time since its last report."""

    app_name: str
    deployment: str
    #: Requests that wait in this caller, on average.
    queued: float
    #: Requests of this caller in work at replicas that stay, on average.
    running: float
    #: Requests that came, and that ended, since the last report.
    arrivals: int = 0
    completions: int = 0
    #: Since the last report.
    period_s: float = 0.0
    #: Requests of this caller in work now, by replica id; those without are left out.
    replicas: dict[str, int] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, is in work, or came."""
        return not (self.queued or self.running or self.arrivals or self.completions or self.replicas)
