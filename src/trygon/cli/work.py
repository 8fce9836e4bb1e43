"""What `trygon run` builds and deploys: one application named by its import path, or all of a configuration file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from trygon.errors import ConfigError, TrygonError
from trygon.processes.builder import Build, Builder, BuildRequest, BuildResult
from trygon.spec.application import ApplicationSpec

if TYPE_CHECKING:
    from trygon.client.instance import Instance
    from trygon.processes.config_build import ConfigBuild

__all__ = ["Announce", "ConfigWork", "ModuleWork", "Outcome", "PendingBuild", "Work"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Specifications, or why there are none."""

    specs: tuple[ApplicationSpec, ...] = ()
    #: For people; empty when all is well.
    error: str = ""
    #: The user's part of the traceback, if user code failed.
    traceback: str = ""
    #: Said once more with every build.
    warnings: tuple[str, ...] = ()
    #: Watched for changes.
    files: tuple[str, ...] = ()
    #: A process ended without an answer.
    crashed: bool = False


class PendingBuild(Protocol):
    """A build under way."""

    def wait(self) -> Outcome:
        """Return what came out; called once."""

    def cancel(self) -> None:
        """End it; `wait` then returns soon."""


#: Takes a line for people, on any thread.
Announce = Callable[[str], object]


class Work(Protocol):
    """What is built, again with every reload."""

    folders: tuple[str, ...]

    def begin(self, builder: Builder, announce: Announce) -> PendingBuild:
        """Start a build with the files as they are now; what takes time is announced."""

    def deploy(
        self, instance: Instance, specs: tuple[ApplicationSpec, ...], removed: tuple[str, ...]
    ) -> dict[str, int]:
        """Deploy what was built; return the revision of each application."""


class ModuleWork:
    """One application.

    Args:
        request: What to build.
    """

    def __init__(self, request: BuildRequest) -> None:
        self._request = request
        self.folders = request.sys_path

    def begin(self, builder: Builder, announce: Announce) -> PendingBuild:
        """Start a build."""
        return _ModuleBuild(builder, self._request, announce)

    def deploy(
        self, instance: Instance, specs: tuple[ApplicationSpec, ...], removed: tuple[str, ...]
    ) -> dict[str, int]:
        """Deploy it; every replica starts anew."""
        return instance.deploy(specs, origin=f"trygon run {self._request.import_path}")


class _ModuleBuild:
    def __init__(self, builder: Builder, request: BuildRequest, announce: Announce) -> None:
        from trygon.client.environments import Preparation

        self._builder = builder
        self._request = request
        self._preparation = Preparation(announce)
        #: The import under way. Packages come first, so that it is usually begun by `wait`.
        self._build: Build | None = None if request.packages else builder.begin(request)
        self._lock = threading.Lock()
        self._is_cancelled = False

    def wait(self) -> Outcome:
        from trygon.client.environments import environments_of

        try:
            if self._request.packages:
                self._preparation.run([self._request.packages])
            build = self._begun()
            result = BuildResult(crashed=True, error="the build was ended") if build is None else build.wait()
            if result.spec is not None:
                self._preparation.run(environments_of([result.spec]))
        except TrygonError as error:
            return Outcome(error=str(error), crashed=self._is_cancelled)
        return Outcome(
            specs=() if result.spec is None else (result.spec,),
            error=result.error,
            traceback=result.traceback,
            files=result.files,
            crashed=result.crashed,
        )

    def _begun(self) -> Build | None:
        with self._lock:
            if self._build is None and not self._is_cancelled:
                self._build = self._builder.begin(self._request)
            return self._build

    def cancel(self) -> None:
        self._preparation.cancel()
        with self._lock:
            self._is_cancelled = True
            if self._build is not None:
                self._build.cancel()


class ConfigWork:
    """All applications of a file, which is read again with every build.

    Args:
        path: The file.
        app_dirs: Folders that modules are looked for in, beside the file's own.
        logging: Options of logging that the command line gave; those of the file's applications win.
    """

    def __init__(self, path: str, app_dirs: tuple[str, ...], logging: dict[str, str | bool]) -> None:
        self._path = path
        self._folder = os.path.dirname(os.path.abspath(path))
        self._app_dirs = app_dirs
        self._logging = logging
        self.folders = (self._folder, *app_dirs)

    def begin(self, builder: Builder, announce: Announce) -> PendingBuild:
        """Start a build."""
        from trygon.processes.config_build import ConfigBuild, read_config_file

        try:
            config = read_config_file(self._path)
        except ConfigError as error:
            return _ConfigBuild(self._path, None, str(error))
        if self._logging:
            config = msgspec.structs.replace(config, logging={**(config.logging or {}), **self._logging})
        build = ConfigBuild(builder, config, folder=self._folder, app_dirs=self._app_dirs, announce=announce)
        return _ConfigBuild(self._path, build, "")

    def deploy(
        self, instance: Instance, specs: tuple[ApplicationSpec, ...], removed: tuple[str, ...]
    ) -> dict[str, int]:
        """Deploy them together; what did not change keeps its replicas."""
        return instance.apply(
            specs,
            removed=removed,
            origin=f"trygon run {os.path.basename(self._path)}",
            target_capacity=specs[0].target_capacity if specs else msgspec.UNSET,
        )


class _ConfigBuild:
    def __init__(self, path: str, build: ConfigBuild | None, error: str) -> None:
        self._path = os.path.abspath(path)
        self._build = build
        self._error = error

    def wait(self) -> Outcome:
        if self._build is None:
            return Outcome(error=self._error, files=(self._path,))
        built = self._build.wait()
        return Outcome(
            specs=built.specs,
            error="\n".join(built.mistakes),
            warnings=built.warnings,
            files=(self._path, *built.files),
        )

    def cancel(self) -> None:
        if self._build is not None:
            self._build.cancel()
