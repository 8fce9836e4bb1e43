"""What each route of the admin API does: ask the backend, and put the outcome into an answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol
from urllib.parse import parse_qs

import msgspec

from trygon.errors import ConfigError, DeployError, InstanceError, RevisionConflictError
from trygon.observability.metrics import FamilySnapshot
from trygon.observability.metrics.exposition import CONTENT_TYPE, render
from trygon.protocols.admin.answers import Answer, failure, json_answer
from trygon.protocols.admin.metrics import state_families
from trygon.protocols.admin.preconditions import expected_revision
from trygon.protocols.admin.requests import read_replicas, read_undo
from trygon.protocols.admin.routes import (
    APPLICATIONS,
    HEALTH,
    HISTORY,
    METRICS,
    SCALE,
    UNDO,
    Found,
    find_route,
)
from trygon.spec.details import ApplicationDetails, InstanceDetails
from trygon.spec.history import RevisionRecord

__all__ = ["AdminApplication", "AdminBackend", "AdminRequest"]

logger = logging.getLogger("trygon.admin")

#: What `?api_type=` may be; Ray Serve's third one has no applications here.
_API_TYPES: Final = ("imperative", "declarative", "unknown")
_TEXT: Final = "text/plain; charset=utf-8"
_RETRY: Final = (("retry-after", "1"),)
#: A scrape ends after 10 s; the numbers of the processes must not wait for a controller that hangs.
_DETAILS_S: Final = 2.0


class AdminRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request that passed all checks."""

    method: str
    raw_path: bytes
    query: bytes = b""
    if_match: str | None = None
    if_none_match: str | None = None
    body: bytes = b""


class AdminBackend(Protocol):
    """Does what is asked; wired to the controller and to the builders of applications by the composition root.

    Every method has a deadline of its own and raises TimeoutError when it is over, or InstanceError when the
    controller cannot answer.
    """

    async def details(self) -> InstanceDetails:
        """Return everything that runs."""

    async def families(self) -> list[FamilySnapshot]:
        """Return what all processes have counted."""

    async def deploy(self, config: bytes) -> None:
        """Make the applications those of a configuration file.

        Raises:
            ConfigError: It has mistakes, or an application cannot be built; nothing was changed.
            DeployError: It cannot be deployed; nothing was changed.
        """

    async def deploy_one(self, name: str, config: bytes, *, seen: int | None) -> int:
        """Deploy one application of a configuration; return its revision.

        Args:
            name: The application.
            config: Its entry in a configuration file.
            seen: The revision that the caller saw, 0 for none; None deploys whatever is there.

        Raises:
            RevisionConflictError: It is at another revision.
            ConfigError: The entry has mistakes, or cannot be built; nothing was changed.
            DeployError: It cannot be deployed; nothing was changed.
        """

    async def delete(self, name: str, *, seen: int | None = None) -> None:
        """Delete an application; it finishes what it has.

        Raises:
            RevisionConflictError: It is at another revision.
        """

    async def history(self, name: str) -> list[RevisionRecord]:
        """Return the revisions of an application that are kept, newest first; none of one that is not known."""

    async def undo(self, name: str, *, to: int | None, seen: int | None) -> int:
        """Deploy what an earlier revision was; return the new one.

        Raises:
            RevisionConflictError: It is at another revision than `seen`.
            DeployError: There is no such revision, or it cannot be deployed; nothing was changed.
        """

    async def scale(self, name: str, deployment: str, num_replicas: int) -> None:
        """Give a deployment another number of replicas, in place.

        Raises:
            DeployError: It cannot have that many; nothing was changed.
        """


class AdminApplication:
    """Answers requests that may pass.

    Args:
        backend: Who does what is asked.
        metrics_prefix: What the names of metrics begin with: "trygon" or "ray".
    """

    def __init__(self, backend: AdminBackend, *, metrics_prefix: str = "trygon") -> None:
        self._backend = backend
        self._metrics_prefix = metrics_prefix

    async def answer(self, request: AdminRequest) -> Answer:
        """Return the answer to one request; errors of the instance are answers too."""
        found = find_route(request.raw_path)
        if found is None:
            path = request.raw_path.decode("ascii", "replace")
            return failure(404, f"there is no {path!r}; the applications are at '/api/serve/applications/'")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in found.route.methods:
            allowed = ", ".join(found.route.methods)
            return failure(
                405, f"{method!r} is not allowed here; use {allowed}", headers=(("allow", allowed),)
            )
        try:
            return await self._dispatch(method, found, request)
        except RevisionConflictError as error:
            return failure(412, str(error))
        except (ConfigError, DeployError) as error:
            return failure(400, str(error))
        except (InstanceError, TimeoutError) as error:
            return failure(503, str(error) or "the instance does not answer in time", headers=_RETRY)

    async def _dispatch(self, method: str, found: Found, request: AdminRequest) -> Answer:
        if found.route is HEALTH:
            return await self._health()
        if found.route is METRICS:
            return await self._metrics()
        if found.route is APPLICATIONS:
            return await self._applications(method, request)
        if found.route is HISTORY:
            records = await self._backend.history(found.name)
            return (
                json_answer({"application": found.name, "revisions": records})
                if records
                else _unknown(found.name)
            )
        if found.route is UNDO:
            return await self._undo(found.name, request)
        if found.route is SCALE:
            return await self._scale(found, request)
        return await self._application(method, found.name, request)

    async def _health(self) -> Answer:
        """The controller answers: that is what this port needs to be of use."""
        await self._backend.details()
        return Answer(200, b"success", _TEXT)

    async def _metrics(self) -> Answer:
        """Return what was counted, also while the controller is being restarted."""
        details = None
        try:
            async with asyncio.timeout(_DETAILS_S):
                details = await self._backend.details()
        except (InstanceError, TimeoutError):
            logger.debug("the controller does not answer a scrape")
        families = [*state_families(details), *await self._backend.families()]
        text = render(families, prefix=self._metrics_prefix)
        return Answer(200, text.encode("utf-8", "replace"), CONTENT_TYPE)

    async def _applications(self, method: str, request: AdminRequest) -> Answer:
        if method == "PUT":
            await self._backend.deploy(request.body)
            return Answer(200)
        if method == "DELETE":
            for name in (await self._backend.details()).applications:
                await self._backend.delete(name)
            return Answer(200)
        given = parse_qs(request.query.decode("ascii", "replace"), keep_blank_values=True)
        wanted = given.get("api_type", [""])[-1]
        if "api_type" in given and wanted.lower() not in _API_TYPES:
            return failure(400, f"api_type is {wanted!r}; want 'imperative' or 'declarative'")
        details = await self._backend.details()
        if wanted:
            chosen = {name: app for name, app in details.applications.items() if app.source == wanted.lower()}
            details = msgspec.structs.replace(details, applications=chosen)
        return json_answer(details)

    async def _application(self, method: str, name: str, request: AdminRequest) -> Answer:
        details = (await self._backend.details()).applications.get(name)
        if method == "GET":
            if details is None:
                return _unknown(name)
            return json_answer(details, headers=(_etag(details.revision),))
        seen = expected_revision(request.if_match, request.if_none_match, _current(details))
        if method == "PUT":
            revision = await self._backend.deploy_one(name, request.body, seen=seen)
            return Answer(200, headers=(_etag(revision),))
        if details is None and seen is None:
            return _unknown(name)
        await self._backend.delete(name, seen=seen)
        return Answer(200)

    async def _undo(self, name: str, request: AdminRequest) -> Answer:
        to = read_undo(request.body)
        if not await self._backend.history(name):
            return _unknown(name)
        details = (await self._backend.details()).applications.get(name)
        seen = expected_revision(request.if_match, request.if_none_match, _current(details))
        revision = await self._backend.undo(name, to=to, seen=seen)
        return json_answer({"revision": revision}, headers=(_etag(revision),))

    async def _scale(self, found: Found, request: AdminRequest) -> Answer:
        num_replicas = read_replicas(request.body)
        details = (await self._backend.details()).applications.get(found.name)
        if details is None or details.status == "DELETING":
            return _unknown(found.name)
        if found.deployment not in details.deployments:
            return failure(404, f"application {found.name!r} has no deployment {found.deployment!r}")
        if not details.external_scaler_enabled:
            return failure(
                412,
                f"application {found.name!r} is not to be scaled from outside; deploy it with "
                "external_scaler_enabled: true",
            )
        await self._backend.scale(found.name, found.deployment, num_replicas)
        return json_answer({"message": f"{found.deployment} is being scaled to {num_replicas} replicas"})


def _current(details: ApplicationDetails | None) -> int:
    """Return the revision that a new one would follow; 0 when there is no such application, or soon none."""
    return 0 if details is None or details.status == "DELETING" else details.revision


def _etag(revision: int) -> tuple[str, str]:
    return "etag", f'"{revision}"'


def _unknown(name: str) -> Answer:
    return failure(404, f"there is no application {name!r}")
