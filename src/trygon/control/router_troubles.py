"""What callers tell of routers of the user's that fail: remembered for those who ask; nothing is decided by it. Pure."""

from __future__ import annotations

from trygon.control.events import RouterTroubled
from trygon.control.state import ControllerState

__all__ = ["fold_router_trouble", "forget_router_troubles"]


def fold_router_trouble(state: ControllerState, event: RouterTroubled, now: float) -> None:
    """Remember what a caller tells, or forget it when all is well again."""
    application = state.applications.get(event.app_name)
    if application is None:
        return
    key = (event.deployment, event.caller)
    before = application.router_troubles.get(key)
    if event.num_requests:
        if not application.router_trouble(event.deployment):
            reason = event.error.strip().rpartition("\n")[2]
            application.note(now, event.deployment, f"the request router fails: {reason}")
        count = event.num_requests + (before[0] if before else 0)
        application.router_troubles[key] = (count, event.error)
    elif before is not None:
        del application.router_troubles[key]
        if not application.router_trouble(event.deployment):
            application.note(now, event.deployment, "the request router routes again")


def forget_router_troubles(state: ControllerState, caller: str) -> None:
    """Forget what a caller told that is gone."""
    for application in state.applications.values():
        for key in [key for key in application.router_troubles if key[1] == caller]:
            del application.router_troubles[key]
