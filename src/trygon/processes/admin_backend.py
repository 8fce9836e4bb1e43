"""What the admin API is done with: calls over the control link, and builds in a program of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from trygon.client.link import ControlLink
from trygon.clock import RealClock
from trygon.errors import ConfigError, DeployError, InstanceError
from trygon.observability.metrics import FamilySnapshot
from trygon.observability.metrics.gathering import gather
from trygon.processes.config_build import BuildTask, BuiltConfig
from trygon.spec.config_file import place
from trygon.spec.control import (
    DeleteApplication,
    DeployApplications,
    GetDetails,
    GetHistory,
    ScaleDeployment,
    UndoApplication,
)
from trygon.spec.details import InstanceDetails
from trygon.spec.document import decode_text, read_document
from trygon.spec.history import RevisionRecord
from trygon.spec.running_options import fixed_problems, wanted_timeouts

__all__ = ["BUILD_S", "ControllerBackend", "application_config"]

logger = logging.getLogger("trygon.admin")

#: Who asked, as the history tells it.
_ORIGIN = "the admin API"
#: Importing user code may load models; longer is a hang.
BUILD_S = 300.0
#: The build ends by itself before that.
_BUILD_SLACK_S = 10.0
#: The controller answers from memory, or when its disk has; longer means that it is being restarted.
_ANSWER_S = 30.0
#: Callers that wait for their turn to build; more are told to come back.
_MAX_WAITING = 4


class ControllerBackend:
    """Implements `protocols.admin.AdminBackend` for one instance.

    Args:
        link: The open control link.
        folder: Where modules are looked for, and what relative paths in a configuration start from.
        runtime_dir: Where processes publish their numbers.
        http_options: Those that the instance was started with.
        keep_alive_s: Above zero, overrides the option of that name, as the environment may say.
    """

    def __init__(
        self,
        link: ControlLink,
        *,
        folder: str,
        runtime_dir: Path,
        http_options: Mapping[str, Any] = MappingProxyType({}),
        keep_alive_s: float = 0.0,
    ) -> None:
        self._link = link
        self._runtime_dir = runtime_dir
        self._http_options = http_options
        self._keep_alive_s = keep_alive_s
        self._folder = folder
        #: One at a time: a build keeps several cores busy, and what it found is compared with what runs.
        self._changing = asyncio.Lock()
        self._num_waiting = 0

    async def details(self) -> InstanceDetails:
        """Return everything that runs."""
        answer = await self._link.call(GetDetails(), timeout_s=_ANSWER_S)
        return msgspec.convert(answer, InstanceDetails)

    async def families(self) -> list[FamilySnapshot]:
        """Return what all processes have counted, the dead ones too."""
        try:
            gathered = await asyncio.to_thread(gather, self._runtime_dir, RealClock.wall())
        except OSError as error:
            raise InstanceError(
                f"the metrics in {str(self._runtime_dir)!r} cannot be read: {error}"
            ) from None
        return gathered.families

    async def deploy(self, config: bytes) -> None:
        """Make the applications those of a configuration file, but for those that programs deployed."""
        text, source = _read(config)
        async with self._turn():
            built = await self._build(text, source)
            named = {spec.name for spec in built.specs}
            details = await self.details()
            self._refuse_fixed(built, details, source)
            removed = tuple(
                application.name
                for application in details.applications.values()
                if application.source == "declarative" and application.name not in named
            )
            request = DeployApplications(
                applications=built.specs,
                declarative=True,
                removed=removed,
                origin=_ORIGIN,
                target_capacity=built.target_capacity,
                http_timeouts=wanted_timeouts(built.http_options, keep_alive_s=self._keep_alive_s),
            )
            await self._link.call(request, timeout_s=_ANSWER_S)

    def _refuse_fixed(self, built: BuiltConfig, details: InstanceDetails, source: str) -> None:
        problems = fixed_problems(
            built.http_options,
            built.proxy_location,
            {**self._http_options, **details.http_options},
            serves_http=details.proxy_location != "Disabled",
        )
        if problems:
            raise ConfigError(*(f"{source}: {problem}; nothing was changed" for problem in problems))

    async def deploy_one(self, name: str, config: bytes, *, seen: int | None) -> int:
        """Deploy one application of a configuration; return its revision."""
        text = application_config(name, config)
        async with self._turn():
            built = await self._build(text, "request.json")
            expected = {} if seen is None else {name: seen}
            request = DeployApplications(
                applications=built.specs, declarative=True, expected_revisions=expected, origin=_ORIGIN
            )
            answer = await self._link.call(request, timeout_s=_ANSWER_S)
            return msgspec.convert(answer, dict[str, int])[name]

    async def delete(self, name: str, *, seen: int | None = None) -> None:
        """Delete an application; it finishes what it has."""
        await self._link.call(DeleteApplication(name=name, expected_revision=seen), timeout_s=_ANSWER_S)

    async def history(self, name: str) -> list[RevisionRecord]:
        """Return the revisions of an application that are kept, newest first; none of one that is not known."""
        try:
            answer = await self._link.call(GetHistory(name=name), timeout_s=_ANSWER_S)
        except DeployError:
            return []
        return msgspec.convert(answer, list[RevisionRecord])

    async def undo(self, name: str, *, to: int | None, seen: int | None) -> int:
        """Deploy what an earlier revision was; return the new one."""
        request = UndoApplication(name=name, to=to, expected_revision=seen)
        answer = await self._link.call(request, timeout_s=_ANSWER_S)
        return msgspec.convert(answer, dict[str, int])[name]

    async def scale(self, name: str, deployment: str, num_replicas: int) -> None:
        """Give a deployment another number of replicas, in place."""
        request = ScaleDeployment(application=name, deployment=deployment, num_replicas=num_replicas)
        await self._link.call(request, timeout_s=_ANSWER_S)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for the right to change applications; a bounded number may wait."""
        if self._num_waiting >= _MAX_WAITING:
            raise TimeoutError(f"{_MAX_WAITING} deployments wait for their turn; try again")
        self._num_waiting += 1
        try:
            await self._changing.acquire()
        finally:
            self._num_waiting -= 1
        try:
            yield
        finally:
            self._changing.release()

    async def _build(self, text: str, source: str) -> BuiltConfig:
        """Read, build and check a configuration in a program of its own: user code never runs here."""
        task = BuildTask(text=text, source=source, folder=self._folder, timeout_s=BUILD_S)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "trygon.processes.config_build"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(BUILD_S + _BUILD_SLACK_S):
                answer, _ = await process.communicate(msgspec.msgpack.encode(task))
        finally:
            # Nobody waits any more, or the time is over; what it forked ends with it.
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            built = msgspec.msgpack.decode(answer, type=BuiltConfig)
        except msgspec.DecodeError:
            raise DeployError(
                f"the program that builds applications ended with {process.returncode} and without an answer; "
                "try again, and see admin.log"
            ) from None
        if built.mistakes:
            raise ConfigError(*built.mistakes)
        for warning in built.warnings:
            logger.warning("%s: %s", source, warning)
        return built


def _read(config: bytes) -> tuple[str, str]:
    """Return the text of a configuration, and a name for it that says its notation."""
    source = "request.json" if config.lstrip()[:1] == b"{" else "request.yaml"
    text = decode_text(config)
    if not isinstance(text, str):
        raise ConfigError(place(source, text))
    return text, source


def application_config(name: str, config: bytes) -> str:
    """Return the text of a configuration with one application, whose entry this is.

    Args:
        name: What it is called; the entry may leave that out.
        config: The entry, in YAML or JSON.

    Raises:
        ConfigError: It cannot be read, or calls itself otherwise.
    """
    text, source = _read(config)
    document = read_document(text, is_json=source.endswith(".json"))
    if document.mistakes:
        raise ConfigError(*(place(source, mistake) for mistake in document.mistakes))
    entry = document.value
    if not isinstance(entry, dict) or "applications" in entry:
        raise ConfigError(
            f"{source}: wanted one application, a mapping with the key 'import_path', found "
            f"{'a whole configuration' if isinstance(entry, dict) else repr(entry)[:60]}; "
            "send a whole configuration to '/api/serve/applications/'"
        )
    found = entry.get("name", name)
    if found != name:
        raise ConfigError(
            f"{source}: name: the path says {name!r}, found {found!r}; leave the name out, or make them agree"
        )
    return msgspec.json.encode({"applications": [{**entry, "name": name}]}).decode()
