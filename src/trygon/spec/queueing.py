"""What a deployment wants of the queues of its callers, as it is pushed to them."""

from __future__ import annotations

import msgspec

__all__ = ["NO_WAIT_BOUND", "QueuePolicy"]

#: Of `max_wait_s`: requests may wait for ever.
NO_WAIT_BOUND = -1.0


class QueuePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Who waits how long at the ingress, and in which order; every default is the plain queue."""

    #: Seconds a request from outside may have to wait; None: 1, or no such bound where max_queued_requests is set.
    max_wait_s: float | None = None
    #: What tells tenants apart: "header:NAME", "client" (the address), or empty.
    fairness_key: str = ""
    #: Where a request says how important it is: "header:NAME", or empty.
    priority: str = ""
    #: What it may say, in lower case, and what that is worth; anything else is worth 0.
    priorities: dict[str, int] = {}

    @property
    def is_fair(self) -> bool:
        """Whether the order is another than that of arrival."""
        return bool(self.fairness_key or self.priority)
