"""Carries what users asked for between the controller's state and the store, off the event loop."""

from __future__ import annotations

import asyncio

import msgspec

from trygon.control.blobs import attach_definitions
from trygon.control.events import InstanceChanged
from trygon.control.history import History
from trygon.control.scaling import restore_scalers
from trygon.control.state import Application, ControllerState, Revision
from trygon.control.store import Store, WantedApplication, WantedState
from trygon.spec.application import ApplicationSpec

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
        #: What each application was before.
        self.history = History()

    def restore(self, now: float, wall_s: float) -> None:
        """Fill an empty state with what was saved.

        Args:
            now: Monotonic time.
            wall_s: Says what is too old to be kept.
        """
        wanted = self._store.load()
        self._last_revisions = dict(wanted.last_revisions)
        self._state.target_capacity = wanted.target_capacity
        self._state.http_timeouts = wanted.http_timeouts
        for gone in wanted.deleted:
            self.history.restore_deleted(gone)
        for kept in wanted.applications:
            application = Application(kept.name)
            application.target = self._attached(kept.target)
            # The reconcilers compare revisions by identity.
            same = (
                kept.target is not None
                and kept.serving is not None
                and kept.serving.number == kept.target.number
            )
            application.serving = application.target if same else self._attached(kept.serving)
            application.failure = kept.failure
            application.failed_deployment = kept.failed_deployment
            application.deleting = kept.deleting
            application.last_revision = kept.last_revision
            restore_scalers(application, now)
            self._state.applications[kept.name] = application
            if application.serving is not None:
                self._state.unserved.add(kept.name)
            self.history.restore(kept.name, kept.history)
        self.history.expire(self._state.applications, wall_s)

    def _attached(self, revision: Revision | None) -> Revision | None:
        if revision is None:
            return None
        return msgspec.structs.replace(
            revision, spec=attach_definitions(revision.spec, self._store.read_blob)
        )

    async def revive(self, revision: Revision) -> ApplicationSpec:
        """Return what an earlier revision was, complete.

        Raises:
            InstanceError: A part of it is lost.
        """
        spec = await asyncio.to_thread(attach_definitions, revision.spec, self._store.read_blob)
        for digest in {spec.code.snapshot, *(deployment.snapshot for deployment in spec.deployments)} - {""}:
            # Else it would run other code than it is taken for.
            await asyncio.to_thread(self._store.read_blob, digest)
        return spec

    def last_revision(self, name: str) -> int:
        """Return the last number given to an application of this name; 0 before the first."""
        application = self._state.applications.get(name)
        return application.last_revision if application is not None else self._last_revisions.get(name, 0)

    def forget(self, application: Application, wall_s: float) -> None:
        """Remember of an application that is gone its number, and for a while its history."""
        self._last_revisions[application.name] = application.last_revision
        self.history.bury(application.name, wall_s)
        self.history.expire(self._state.applications.keys() - {application.name}, wall_s)

    async def save(
        self,
        *,
        deployed: dict[str, Revision] | None = None,
        deleted: tuple[str, ...] = (),
        blobs: dict[str, bytes] | None = None,
        instance: InstanceChanged | None = None,
    ) -> None:
        """Save the state as it will be after this change.

        Args:
            deployed: Revisions that are about to be wanted, by application.
            deleted: Applications that are about to be unwanted.
            blobs: Snapshots of code that the revisions name by digest.
            instance: What is about to be wanted of the instance; None is as it is.
        """
        async with self._saving:
            if self._closed:
                return
            new = deployed or {}
            blobs = dict(blobs or {})
            for name, revision in new.items():
                # On a thread: a model inside of a definition takes long to digest.
                short, large = await asyncio.to_thread(self.history.detached, name, revision)
                self.history.add(name, short)
                blobs |= large
            try:
                wanted = self._wanted(new, deleted, blobs)
                if instance is not None:
                    wanted = msgspec.structs.replace(
                        wanted,
                        target_capacity=instance.target_capacity,
                        http_timeouts=instance.http_timeouts,
                    )
                await asyncio.to_thread(self._store.save, wanted, blobs)
            except BaseException:
                for name, revision in new.items():
                    self.history.remove(name, revision.number)
                raise

    async def clear(self) -> None:
        """Forget everything for good: the next start of this instance is empty."""
        self._closed = True
        async with self._saving:
            await asyncio.to_thread(self._store.clear)

    def close(self) -> None:
        """Keep what is saved: what follows is the end of the instance, and nobody's wish."""
        self._closed = True

    def _wanted(
        self, deployed: dict[str, Revision], deleted: tuple[str, ...], blobs: dict[str, bytes]
    ) -> WantedState:
        def detached(revision: Revision | None) -> Revision | None:
            if revision is None:
                return None
            short, large = self.history.detached(name, revision)
            blobs.update(large)
            return short

        kept = []
        # In the order they came, which is the order that a restored configuration is shown in.
        for name in [*self._state.applications, *(n for n in deployed if n not in self._state.applications)]:
            application = self._state.applications.get(name) or Application(name)
            revision = deployed.get(name)
            gone = name in deleted
            kept.append(
                WantedApplication(
                    name=name,
                    target=None if gone else detached(revision or application.target),
                    serving=None if gone else detached(application.serving),
                    failure="" if gone or revision else application.failure,
                    failed_deployment="" if gone or revision else application.failed_deployment,
                    deleting=gone or (application.deleting and revision is None),
                    last_revision=revision.number if revision else application.last_revision,
                    # Also while it is on its way out: it may be wanted back.
                    history=self.history.settled(application, revision),
                )
            )
        return WantedState(
            applications=tuple(kept),
            last_revisions=dict(self._last_revisions),
            deleted=self.history.deleted({application.name for application in kept}),
            target_capacity=self._state.target_capacity,
            http_timeouts=self._state.http_timeouts,
        )
