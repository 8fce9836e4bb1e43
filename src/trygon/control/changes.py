"""What users ask for: judged, saved, and then told to the state. One change at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from trygon.clock import Clock
from trygon.control.admission import admit, check_revision, notes_for
from trygon.control.blobs import detach_code
from trygon.control.events import ApplicationDeleted, ApplicationDeployed, InstanceChanged
from trygon.control.keeping import Keeper
from trygon.control.reconcile.change import next_revision
from trygon.control.sizing import scaled_base
from trygon.control.state import Application, ControllerState, Revision
from trygon.engine.base import Engine
from trygon.errors import DeployError, InstanceError
from trygon.spec.application import ApplicationSpec
from trygon.spec.capacity import at_capacity, with_replicas
from trygon.spec.control import DeleteApplication, DeployApplications, ScaleDeployment, UndoApplication
from trygon.spec.validation import near_names

__all__ = ["Changes"]


class Changes:
    """Carries out calls that change what is wanted.

    Args:
        state: What is known; changed by events only.
        keeper: Saves what is wanted.
        engine: Says what there is room for.
        clock: Tells when something was deployed.
        tell: Takes the events of a change that was saved.
        prepare: Starts what an application that was deployed needs beside its replicas.
    """

    def __init__(
        self,
        state: ControllerState,
        keeper: Keeper,
        engine: Engine,
        clock: Clock,
        tell: Callable[..., None],
        prepare: Callable[[str], None],
    ) -> None:
        self._state = state
        self._keeper = keeper
        self._engine = engine
        self._clock = clock
        self._tell = tell
        self._prepare = prepare
        #: Each change is saved before it is acted on, and before the next one is judged.
        self._one = asyncio.Lock()
        self._is_closed = False

    def close(self) -> None:
        """Refuse every change from now on: the instance ends."""
        self._is_closed = True

    async def deploy(self, request: DeployApplications) -> dict[str, int]:
        """Make what is asked for the wanted revisions; return their numbers, by application."""
        specs, blobs = [], {}
        for given in request.applications:
            spec, found = await asyncio.to_thread(detach_code, given)
            specs.append(spec)
            blobs.update(found)
        async with self._one:
            repeated = self._repeated([spec.name for spec in specs], request.token)
            if repeated is not None:
                return repeated
            for name, seen in request.expected_revisions.items():
                check_revision(self._state.applications.get(name), name, seen)
            return await self._want(tuple(specs), blobs, request)

    async def undo(self, request: UndoApplication) -> dict[str, int]:
        """Want an earlier revision again, as a new one."""
        async with self._one:
            repeated = self._repeated([request.name], request.token)
            if repeated is not None:
                return repeated
            if request.expected_revision is not None:
                found = self._state.applications.get(request.name)
                check_revision(found, request.name, request.expected_revision)
            earlier = self._keeper.history.earlier(self.remembered(request.name), request.to)
            spec = await self._keeper.revive(earlier)
            origin = f"undo: revision {earlier.number} again"
            return await self._want(
                (spec,), {}, DeployApplications(applications=(), token=request.token, origin=origin)
            )

    async def scale(self, request: ScaleDeployment) -> dict[str, int]:
        """Give a deployment another size; a revision of its own, so that it is saved and rolled out like any."""
        name, wanted = request.deployment, request.num_replicas
        async with self._one:
            base = scaled_base(self._state.applications.get(request.application), request)
            if base.by_name[name].options.num_replicas == wanted:
                return {request.application: base.number}
            origin = f"scaled: {name} to {wanted}"
            call = DeployApplications(applications=(), declarative=True, origin=origin)
            spec = with_replicas(base.spec, name, wanted)
            return await self._want((spec,), {}, call, scales=base.scales or base.number)

    def remembered(self, name: str) -> Application:
        """Return an application that is there, or stands for one that is gone and has a history."""
        known = [*self._state.applications, *(gone.name for gone in self._keeper.history.deleted(()))]
        if name not in known:
            hint = near_names(name, known) or "; trygon status shows what there is"
            raise DeployError(f"there is no application {name!r}{hint}")
        return self._state.applications.get(name) or Application(name)

    async def _want(
        self,
        specs: tuple[ApplicationSpec, ...],
        blobs: dict[str, bytes],
        request: DeployApplications,
        *,
        scales: int = 0,
    ) -> dict[str, int]:
        """Make each specification the wanted revision of its application, as `request` says; `_one` is held."""
        if self._is_closed:
            raise InstanceError("the instance is shutting down; start a new one")
        state = self._state
        before = InstanceChanged(state.target_capacity, state.http_timeouts)
        instance = InstanceChanged(
            before.target_capacity if request.target_capacity is msgspec.UNSET else request.target_capacity,
            request.http_timeouts or before.http_timeouts,
        )
        capacity = instance.target_capacity
        specs = tuple(at_capacity(spec, capacity) if spec.config is not None else spec for spec in specs)
        kept = {spec.name for spec in specs}
        removed = tuple(n for n in request.removed if n in self._state.applications and n not in kept)
        staying = {name: found for name, found in self._state.applications.items() if name not in removed}
        if specs or not request.declarative:
            admit(specs, staying, self._engine.resources(), self._engine.capabilities)
        revisions: dict[str, Revision] = {}
        numbers: dict[str, int] = {}
        for spec in specs:
            revision = self._next_revision(spec, request, scales)
            if revision is not None:
                revisions[spec.name] = revision
            numbers[spec.name] = (revision or self._target(spec.name)).number
        if not revisions and not removed and instance == before:
            return numbers
        await self._keeper.save(deployed=revisions, deleted=removed, blobs=blobs, instance=instance)
        if self._is_closed:
            # It began while the state was being saved; what is started now would never be ended.
            raise InstanceError("the instance is shutting down; start a new one")
        self._tell(
            instance,
            *(ApplicationDeleted(name) for name in removed),
            *(ApplicationDeployed(name, revision) for name, revision in revisions.items()),
        )
        for name in revisions:
            self._prepare(name)
        return numbers

    def _repeated(self, names: list[str], token: str) -> dict[str, int] | None:
        """Return the answer given before to the same call, sent again after a controller's death."""
        if not token:
            return None
        numbers = {}
        for name in names:
            application = self._state.applications.get(name)
            target = application.target if application is not None else None
            if target is None or target.token != token:
                return None
            numbers[name] = target.number
        return numbers or None

    def _next_revision(
        self, spec: ApplicationSpec, request: DeployApplications, scales: int
    ) -> Revision | None:
        asked = Revision(
            number=self._keeper.last_revision(spec.name) + 1,
            spec=spec,
            deployed_wall_s=self._clock.wall(),
            token=request.token,
            origin=request.origin,
            scales=scales,
            notes=notes_for(spec, self._engine.resources()),
        )
        application = self._state.applications.get(spec.name)
        return next_revision(application, asked, declarative=request.declarative)

    def _target(self, name: str) -> Revision:
        target = self._state.applications[name].target
        assert target is not None, "only a revision that is aimed at already needs no new one"
        return target

    async def delete(self, request: DeleteApplication) -> None:
        """Want an application no more."""
        name = request.name
        async with self._one:
            application = self._state.applications.get(name)
            seen = request.expected_revision
            is_gone = application is None or application.deleting
            # The call is sent again after the controller's death, and may have been carried out before it.
            if seen is not None and not (is_gone and seen == self._keeper.last_revision(name)):
                check_revision(application, name, seen)
            if application is None:
                return
            await self._keeper.save(deleted=(name,))
            self._tell(ApplicationDeleted(name))
