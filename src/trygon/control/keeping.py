"""Carries what users asked for between the controller's state and the store, off the event loop."""

from __future__ import annotations

import asyncio

from trygon.control.state import Application, ControllerState, Revision
from trygon.control.store import Store, WantedApplication, WantedState

__all__ = ["Keeper"]


class Keeper:
    """Saves what is wanted, one writer at a time, each with the newest.

    Args:
        store: Where it is kept.
        state: The controller's state; only `restore` changes it.
    """

    def __init__(self, store: Store, state: ControllerState) -> None:
        self._store = store
        self._state = state
        self._saving = asyncio.Lock()
        #: True once nothing may be saved any more.
        self._closed = False
        #: Last numbers of applications that are gone, so that a new one of the same name goes on counting.
        self._last_revisions: dict[str, int] = {}

    def restore(self) -> None:
        """Fill an empty state with what was saved."""
        wanted = self._store.load()
        self._last_revisions = dict(wanted.last_revisions)
        for kept in wanted.applications:
            application = Application(kept.name)
            application.target = kept.target
            # The reconcilers compare revisions by identity.
            same = (
                kept.target is not None
                and kept.serving is not None
                and kept.serving.number == kept.target.number
            )
            application.serving = kept.target if same else kept.serving
            application.failure = kept.failure
            application.failed_deployment = kept.failed_deployment
            application.deleting = kept.deleting
            application.last_revision = kept.last_revision
            self._state.applications[kept.name] = application

    def last_revision(self, name: str) -> int:
        """Return the last number given to an application of this name; 0 before the first."""
        application = self._state.applications.get(name)
        return application.last_revision if application is not None else self._last_revisions.get(name, 0)

    def forget(self, application: Application) -> None:
        """Remember only the number of an application that is gone."""
        self._last_revisions[application.name] = application.last_revision

    async def save(
        self, *, deployed: dict[str, Revision] | None = None, deleted: tuple[str, ...] = ()
    ) -> None:
        """Save the state as it will be after this change."""
        async with self._saving:
            if not self._closed:
                wanted = self._wanted(deployed or {}, deleted)
                await asyncio.to_thread(self._store.save, wanted)

    async def clear(self) -> None:
        """Forget everything for good: the next start of this instance is empty."""
        self._closed = True
        async with self._saving:
            await asyncio.to_thread(self._store.clear)

    def close(self) -> None:
        """Keep what is saved: what follows is the end of the instance, and nobody's wish."""
        self._closed = True

    def _wanted(self, deployed: dict[str, Revision], deleted: tuple[str, ...]) -> WantedState:
        kept = []
        for name in self._state.applications.keys() | deployed.keys():
            application = self._state.applications.get(name) or Application(name)
            revision = deployed.get(name)
            gone = name in deleted
            kept.append(
                WantedApplication(
                    name=name,
                    target=None if gone else revision or application.target,
                    serving=None if gone else application.serving,
                    failure="" if gone or revision else application.failure,
                    failed_deployment="" if gone or revision else application.failed_deployment,
                    deleting=gone or (application.deleting and revision is None),
                    last_revision=revision.number if revision else application.last_revision,
                )
            )
        return WantedState(applications=tuple(kept), last_revisions=dict(self._last_revisions))
