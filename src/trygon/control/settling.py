"""Holds answers about what runs, until a restarted controller has heard from those that it adopted."""

from __future__ import annotations

import asyncio

from trygon.control.reconcile.status import application_status
from trygon.control.state import Application, ControllerState
from trygon.spec.status import ApplicationStatus

__all__ = ["Settling"]

#: Ingress processes and replicas connect again within milliseconds; who has not by then has something to tell.
_PATIENCE_S = 1.0


class Settling:
    """What ran before this controller, and has not said yet that it still does.

    A controller that was killed leaves everything running. Its successor knows of it at once, but not which
    table the ingress processes route by, nor which options replicas took over; until they have said so,
    an application that serves would look as if it were being deployed.
    """

    def __init__(self) -> None:
        #: None until it is known who has run.
        self._awaited: set[str] | None = None
        self._over = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, state: ControllerState) -> None:
        """Wait for those whose replicas all run, if there are any; call it once these were reconciled."""
        self._awaited = {name for name, found in state.applications.items() if _is_whole(found)}
        # Without an application that ran, the ingress processes may be just as new as this one.
        if self._awaited:
            self._timer = asyncio.get_running_loop().call_later(_PATIENCE_S, self._over.set)
        else:
            self._over.set()

    def look(self, state: ControllerState) -> None:
        """Go on when everybody has been heard."""
        if self._awaited is None or self._over.is_set():
            return
        self._awaited = {name for name in self._awaited if _is_unheard(state.applications.get(name))}
        if not self._awaited:
            self._over.set()

    async def wait(self) -> None:
        """Return when everybody has been heard, or has had the time."""
        await self._over.wait()

    def close(self) -> None:
        """Wait for nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._over.set()


def _is_whole(application: Application) -> bool:
    """Whether it served before, as far as the engine can tell."""
    target = application.target
    return (
        target is not None
        and application.serving is target
        and not application.failure
        and all(
            application.ready_count(d, target.generation(d.name)) >= application.count(target, d)
            for d in target.spec.deployments
        )
    )


def _is_unheard(application: Application | None) -> bool:
    return application is not None and application_status(application).status is ApplicationStatus.DEPLOYING
