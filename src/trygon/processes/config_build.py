"""From a configuration file to specifications: read, build in processes of their own, lay overrides over, check.

Used by the command line and by servers. A program with threads or an event loop calls `build_elsewhere`,
which execs ``python -P -m trygon.processes.config_build``; a program without them gives a `Builder`.
Nothing is deployed here, and one application that fails fails all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from trygon.client.completion import complete_deployments, existing
from trygon.client.environments import Preparation, environments_of, tell_on_stderr
from trygon.client.module_tree import importable_from
from trygon.client.requirements import complete_packages
from trygon.errors import ConfigError, DeployError, ServeError, TrygonError
from trygon.graph.overrides import CONFIG_CHECKS, UnknownDeploymentError, apply_overrides
from trygon.processes.builder import Build, Builder, BuildRequest, BuildResult
from trygon.spec.application import ApplicationSpec
from trygon.spec.capacity import at_capacity, external_scaler_problem
from trygon.spec.config_file import ApplicationConfig, DeployConfig, parse_config, place
from trygon.spec.document import decode_text
from trygon.spec.packages import PackageEnvironment

__all__ = [
    "BuildTask",
    "BuiltConfig",
    "ConfigBuild",
    "build_config",
    "build_elsewhere",
    "main",
    "read_config",
    "read_config_file",
]

#: For all applications of a file together; the import of a large library takes tens of seconds.
BUILD_TIMEOUT_S = 600.0
#: Imports keep a core busy each.
_AT_ONCE = 4
_HTTP_PATHS = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs")


class BuiltConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of a file; without mistakes all is well."""

    specs: tuple[ApplicationSpec, ...] = ()
    #: What the file says of the instance as a whole; see DeployConfig.
    target_capacity: float | None = None
    http_options: dict[str, Any] = {}
    proxy_location: str | None = None
    #: What is accepted and changes nothing yet, in sentences for people.
    warnings: tuple[str, ...] = ()
    #: Files that the builds imported from outside of the Python installation.
    files: tuple[str, ...] = ()
    #: As the mistakes of a ConfigError.
    mistakes: tuple[str, ...] = ()


def read_config(text: str, *, source: str) -> DeployConfig:
    """Read a configuration file's text with all checks that need no user code.

    Raises:
        ConfigError: Naming every mistake with file, line, key and remedy.
    """
    return parse_config(text, source=source, checks=CONFIG_CHECKS)


def read_config_file(path: str) -> DeployConfig:
    """Read a configuration file.

    Raises:
        ConfigError: It cannot be read, or has mistakes.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be read: {error.strerror}; correct its name") from None
    text = decode_text(data)
    if not isinstance(text, str):
        raise ConfigError(place(path, text))
    config = read_config(text, source=path)
    folder = os.path.dirname(os.path.abspath(path))
    return msgspec.structs.replace(config, http_options=_anchored(config.http_options, folder))


def _anchored(http_options: dict[str, Any], folder: str) -> dict[str, Any]:
    """Let the paths of a certificate start from the file's folder, as all its paths do."""
    return {
        name: os.path.join(folder, os.path.expanduser(value)) if name in _HTTP_PATHS and value else value
        for name, value in http_options.items()
    }


class ConfigBuild:
    """The build of all applications of a file, under way.

    Args:
        builder: Forks a process for each application.
        config: The file.
        folder: Where it lies: what relative paths start from, and modules are looked for in.
        app_dirs: More folders that modules are looked for in.
        timeout_s: For all together.
        announce: Called with a line for people when something takes time.
    """

    def __init__(
        self,
        builder: Builder,
        config: DeployConfig,
        *,
        folder: str,
        app_dirs: tuple[str, ...] = (),
        timeout_s: float = BUILD_TIMEOUT_S,
        announce: Callable[[str], object] = tell_on_stderr,
    ) -> None:
        self._builder = builder
        self._config = config
        self._folder = folder
        self._app_dirs = app_dirs
        self._timeout_s = timeout_s
        self._preparation = Preparation(announce)
        self._lock = threading.Lock()
        self._running: list[Build] = []
        self._is_cancelled = False
        #: Why it was cancelled by the clock; empty while it was not.
        self._late = ""

    def wait(self) -> BuiltConfig:
        """Build everything and return what came out; called once, from any thread."""
        timer = threading.Timer(self._timeout_s, self._expire)
        timer.daemon = True
        timer.start()
        try:
            return self._build()
        except ConfigError as error:
            return BuiltConfig(mistakes=error.mistakes)
        finally:
            timer.cancel()

    def cancel(self) -> None:
        """End it; `wait` then returns soon."""
        with self._lock:
            self._is_cancelled = True
            self._preparation.cancel()
            for build in self._running:
                build.cancel()

    def _expire(self) -> None:
        self._late = (
            f"the build took more than {self._timeout_s:g} s and was ended; see what its module waits for"
        )
        self.cancel()

    def _build(self) -> BuiltConfig:
        config = self._config
        requests = [self._request(index, one) for index, one in enumerate(config.applications)]
        for index, request in enumerate(requests):
            if request.packages is not None:
                self._prepare(f"applications[{index}].runtime_env.pip", [request.packages])
        specs: list[ApplicationSpec] = []
        mistakes: list[str] = []
        files: dict[str, None] = {}
        warnings = list(config.warnings)
        for index, result in enumerate(self._results(requests)):
            path = f"applications[{index}]"
            files.update(dict.fromkeys(result.files))
            if result.spec is None:
                failure = config.error(f"{path}.import_path", self._late or _told(result))
                mistakes += failure.mistakes
                continue
            try:
                specs.append(self._finished(path, config.applications[index], result.spec, warnings))
            except ConfigError as error:
                mistakes += error.mistakes
        if not mistakes:
            for index, spec in enumerate(specs):
                self._prepare(f"applications[{index}].deployments", environments_of([spec]))
        return BuiltConfig(
            specs=() if mistakes else tuple(specs),
            target_capacity=config.target_capacity,
            http_options=config.http_options,
            proxy_location=config.proxy_location,
            warnings=tuple(dict.fromkeys(warnings)),
            files=tuple(files),
            mistakes=tuple(mistakes),
        )

    def _prepare(self, path: str, environments: list[PackageEnvironment]) -> None:
        try:
            self._preparation.run(environments)
        except TrygonError as error:
            raise self._config.error(path, self._late or str(error)) from None

    def _packages(self, path: str, packages: PackageEnvironment | None) -> PackageEnvironment | None:
        if packages is None:
            return None
        try:
            return complete_packages(packages, self._folder) or None
        except DeployError as error:
            raise self._config.error(f"{path}.pip", str(error)) from None

    def _results(self, requests: list[BuildRequest]) -> Iterator[BuildResult]:
        for begin in range(0, len(requests), _AT_ONCE):
            with self._lock:
                if self._is_cancelled:
                    builds = []
                else:
                    builds = [self._builder.begin(request) for request in requests[begin : begin + _AT_ONCE]]
                self._running = builds
            if not builds:
                yield from (BuildResult(error="the build was ended", crashed=True) for _ in requests[begin:])
                return
            yield from [build.wait() for build in builds]

    def _request(self, index: int, application: ApplicationConfig) -> BuildRequest:
        path = f"applications[{index}].runtime_env"
        env = application.runtime_env
        working_dir = self._folder
        if env.working_dir is not None:
            working_dir = self._existing(f"{path}.working_dir", env.working_dir)
        modules = [
            importable_from(self._existing(f"{path}.py_modules[{number}]", item, is_module=True))
            for number, item in enumerate(env.py_modules)
        ]
        return BuildRequest(
            import_path=application.import_path,
            args=application.args,
            name=application.name,
            route_prefix=application.route_prefix,
            sys_path=tuple(dict.fromkeys((*modules, working_dir, self._folder, *self._app_dirs))),
            working_dir=working_dir,
            env_vars=env.env_vars,
            packages=self._packages(path, env.packages),
            logging=(self._config.logging if application.logging is None else application.logging) or {},
        )

    def _existing(self, path: str, written: str, *, is_module: bool = False) -> str:
        try:
            return existing(written, self._folder, is_module=is_module)
        except DeployError as error:
            raise self._config.error(path, str(error)) from None

    def _finished(
        self, path: str, application: ApplicationConfig, spec: ApplicationSpec, warnings: list[str]
    ) -> ApplicationSpec:
        """Lay the overrides over a built application."""
        for index, override in enumerate(application.deployments):
            inner = f"{path}.deployments[{index}]"
            try:
                spec = apply_overrides(spec, (override,), warn=lambda _, text: warnings.append(text))
                spec = complete_deployments(spec, self._folder)
            except UnknownDeploymentError as error:
                raise self._config.error(f"{inner}.name", str(error)) from None
            except DeployError as error:
                where = f"{inner}.ray_actor_options.runtime_env"
                text = str(error).removeprefix(f"deployment {override.name!r}: ")
                raise self._config.error(where, text) from None
            except ConfigError:
                raise
            except (ServeError, TypeError) as error:
                raise self._config.error(inner, str(error)) from None
        self._refuse_two_scalers(path, application, spec)
        spec = msgspec.structs.replace(
            spec,
            config=application.given,
            autoscaling_policy=application.autoscaling_policy,
            external_scaler_enabled=application.external_scaler_enabled,
        )
        return at_capacity(spec, self._config.target_capacity)

    def _refuse_two_scalers(self, path: str, application: ApplicationConfig, spec: ApplicationSpec) -> None:
        """The code may ask for autoscaling where the file has another program set the numbers."""
        problem = external_scaler_problem(spec) if application.external_scaler_enabled else ""
        if problem:
            raise self._config.error(f"{path}.external_scaler_enabled", problem)


def build_config(
    builder: Builder,
    config: DeployConfig,
    *,
    folder: str,
    app_dirs: tuple[str, ...] = (),
    timeout_s: float = BUILD_TIMEOUT_S,
) -> BuiltConfig:
    """Build every application of a file; see `ConfigBuild`.

    Raises:
        ConfigError: One of them cannot be built, with its place in the file.
    """
    built = ConfigBuild(builder, config, folder=folder, app_dirs=app_dirs, timeout_s=timeout_s).wait()
    if built.mistakes:
        raise ConfigError(*built.mistakes)
    return built


def _told(result: BuildResult) -> str:
    return f"{result.error}\n{result.traceback}" if result.traceback else result.error


# ---- in a program of its own


class BuildTask(msgspec.Struct, frozen=True, kw_only=True):
    """What the program is told on its standard input, in msgpack; it answers with a BuiltConfig."""

    text: str
    source: str
    folder: str
    app_dirs: tuple[str, ...] = ()
    timeout_s: float = BUILD_TIMEOUT_S


def build_elsewhere(
    text: str,
    *,
    source: str,
    folder: str,
    app_dirs: tuple[str, ...] = (),
    timeout_s: float = BUILD_TIMEOUT_S,
) -> BuiltConfig:
    """Read and build a configuration in a program of its own, and wait for it; for programs with threads.

    Raises:
        ConfigError: It has mistakes, or an application cannot be built.
        DeployError: The program failed.
    """
    task = BuildTask(text=text, source=source, folder=folder, app_dirs=app_dirs, timeout_s=timeout_s)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "trygon.processes.config_build"],
            input=msgspec.msgpack.encode(task),
            # What user code prints goes where this program's errors go.
            stdout=subprocess.PIPE,
            # It ends by itself before that.
            timeout=timeout_s + 10.0,
            check=False,
        )
        built = msgspec.msgpack.decode(done.stdout, type=BuiltConfig)
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        raise DeployError(f"the program that builds applications failed ({error}); try again") from None
    if built.mistakes:
        raise ConfigError(*built.mistakes)
    return built


def main() -> None:
    """Build what stands in standard input; what user code prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=BuildTask)
    builder = Builder()
    try:
        config = read_config(task.text, source=task.source)
        build = ConfigBuild(
            builder, config, folder=task.folder, app_dirs=task.app_dirs, timeout_s=task.timeout_s
        )
        built = build.wait()
    except ConfigError as error:
        built = BuiltConfig(mistakes=error.mistakes)
    finally:
        builder.close()
    with open(answer, "wb") as file:
        file.write(msgspec.msgpack.encode(built))


if __name__ == "__main__":
    main()
