"""Configuration files: what Ray Serve's schema allows, read into frozen values with every mistake named.

`parse_config` decides; it opens no file and imports nobody's code. What only user code can tell (whether an
import path exists, which deployments it has) is checked when the applications are built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, Protocol

import msgspec

from trygon.errors import ConfigError
from trygon.spec.application import PolicyConfig
from trygon.spec.autoscaling import AutoscalingPolicy
from trygon.spec.document import Mistake, read_document
from trygon.spec.http_options import ControllerOptions, HTTPOptions, ProxyLocation, gRPCOptions
from trygon.spec.logging_options import LoggingConfig, TracingConfig
from trygon.spec.packages import PackageEnvironment, check_pip
from trygon.spec.validation import OptionError, Options, check_value, near_names, number

__all__ = [
    "ApplicationConfig",
    "ConfigChecks",
    "DeployConfig",
    "DeploymentConfig",
    "RuntimeEnv",
    "check_section",
    "parse_config",
    "place",
]


class RuntimeEnv(msgspec.Struct, frozen=True, kw_only=True):
    """What an application's processes get; folders as they were written, relative to the file."""

    env_vars: dict[str, str] = {}
    working_dir: str | None = None
    #: Folders (or packages) that modules are looked for in, before everything else.
    py_modules: tuple[str, ...] = ()
    #: Packages to install; None for none.
    packages: PackageEnvironment | None = None


class DeploymentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one deployment that win over those in the code."""

    name: str
    #: Only those that were given, in the plain form of `@serve.deployment`.
    options: dict[str, Any] = {}


class ApplicationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One application of a file."""

    name: str = "default"
    route_prefix: str | None = "/"
    import_path: str
    runtime_env: RuntimeEnv = RuntimeEnv()
    #: For an application builder.
    args: dict[str, Any] = {}
    deployments: tuple[DeploymentConfig, ...] = ()
    #: The fields of a LoggingConfig that were given, those of the whole file included.
    logging: dict[str, Any] | None = None
    #: A policy for all its deployments together; None without one.
    autoscaling_policy: PolicyConfig | None = None
    #: Whether another program sets the numbers of replicas, over the admin API.
    external_scaler_enabled: bool = False
    #: The section as it was written; `trygon config` shows it.
    given: dict[str, Any] = {}


class DeployConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A whole file."""

    applications: tuple[ApplicationConfig, ...] = ()
    proxy_location: str | None = None
    #: The options that were given; they count when an instance is started.
    http_options: dict[str, Any] = {}
    logging: dict[str, Any] | None = None
    #: Percentage that the numbers of replicas are scaled by; None leaves them alone.
    target_capacity: float | None = None
    #: What is accepted and changes nothing yet, in sentences for people.
    warnings: tuple[str, ...] = ()
    #: Name of the file, for people.
    source: str
    #: Line of every value by its path, such as ``applications[0].name``.
    lines: dict[str, int] = {}

    def error(self, path: str, text: str) -> ConfigError:
        """Return an error about one place of the file."""
        return ConfigError(place(self.source, Mistake(self.line_of(path), path, text)))

    def line_of(self, path: str) -> int:
        """Return the line of a value, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 0)


class ConfigChecks(Protocol):
    """Checks that stand elsewhere; each raises ValueError or TypeError that says what is wrong."""

    def application_name(self, value: object) -> None:
        """Check what an application may be called."""

    def route_prefix(self, value: object) -> None:
        """Check what can be routed to."""

    def runtime_env(self, value: dict[str, Any]) -> None:
        """Check an application's runtime environment."""

    def deployment_keys(self) -> tuple[str, ...]:
        """Return the names of the options of a deployment, and those whose check says what replaced them."""

    def deployment_option(self, name: str, value: object) -> None:
        """Check one option of a deployment."""

    def deployment_options(self, name: str, options: dict[str, Any]) -> None:
        """Check the options of a deployment against each other."""


def parse_config(text: str, *, source: str, checks: ConfigChecks | None = None) -> DeployConfig:
    """Read a configuration file in YAML or JSON.

    Args:
        text: What stands in it.
        source: Its name, for people; one that ends with ".json" is held to JSON.
        checks: Checks of names and options; without them only notation, keys and types are checked.

    Raises:
        ConfigError: Naming every mistake with file, line, key and remedy.
    """
    document = read_document(text, is_json=source.lower().endswith(".json"))
    reader = _Reader(document.lines, checks)
    config = None
    if document.value is not None:
        config = reader.read(document.value, source)
    mistakes = [*document.mistakes, *reader.mistakes]
    if mistakes or config is None:
        told = sorted(dict.fromkeys(mistakes), key=lambda mistake: mistake.line)
        raise ConfigError(*(place(source, mistake) for mistake in told))
    return config


def check_section(
    value: dict[str, Any],
    section: Literal["config", "application", "deployment"],
    *,
    source: str,
    checks: ConfigChecks | None = None,
) -> None:
    """Check what a program would write into a file, as the file would be checked.

    Args:
        value: A whole configuration, or one application or deployment of it.
        section: Which of them.
        source: What it is called, for people.
        checks: As in `parse_config`.

    Raises:
        ConfigError: Naming every mistake with key and remedy.
    """
    reader = _Reader(dict.fromkeys(_paths(value, ""), 0), checks)
    match section:
        case "config":
            reader.read(value, source)
        case "application":
            reader.application("", value)
        case "deployment":
            reader.deployment("", value)
    if reader.mistakes:
        raise ConfigError(*(place(source, mistake) for mistake in dict.fromkeys(reader.mistakes)))


def _paths(value: Any, path: str) -> Iterator[str]:
    """Yield the path of every value inside."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, f"{path}[{index}]")


def place(source: str, mistake: Mistake) -> str:
    """Return a mistake as people read it: ``file:line: key: what``."""
    line = f":{mistake.line}" if mistake.line else ""
    path = f" {mistake.path}:" if mistake.path else ""
    return f"{source}{line}:{path} {mistake.text}"


_TOP = (
    *("proxy_location", "http_options", "grpc_options", "logging_config", "tracing_config"),
    *("controller_options", "applications", "target_capacity"),
)
_APPLICATION = (
    *("name", "route_prefix", "import_path", "runtime_env", "args", "deployments"),
    *("logging_config", "autoscaling_policy", "external_scaler_enabled"),
)
#: Keys that stand in the wrong place, and where they belong.
_MISPLACED = {
    "host": "it belongs into http_options, at the top of the file",
    "port": "it belongs into http_options, at the top of the file",
    "import_path": "it belongs to an item of 'applications'",
}
_RUNTIME_ENV = ("env_vars", "working_dir", "py_modules", "pip")


class _Reader:
    """Turns a document's values into a DeployConfig, noting mistakes as it goes."""

    def __init__(self, lines: dict[str, int], checks: ConfigChecks | None) -> None:
        self._lines = lines
        self._checks = checks
        self.mistakes: list[Mistake] = []
        self._warnings: list[str] = []

    def read(self, value: Any, source: str) -> DeployConfig | None:
        if not self._is_mapping("", value, "the file is a mapping with the key 'applications'"):
            return None
        self._known("", value, _TOP)
        http = self._options("http_options", value.get("http_options"), HTTPOptions)
        logging = self._options("logging_config", value.get("logging_config"), LoggingConfig)
        self._accept_unused(value)
        applications = self._applications(value)
        self._refuse_doubles(applications)
        return DeployConfig(
            applications=tuple(application for application in applications if application is not None),
            proxy_location=self._location(value.get("proxy_location")),
            http_options=http or {},
            logging=logging,
            target_capacity=self._capacity(value.get("target_capacity")),
            warnings=tuple(self._warnings),
            source=source,
            lines=self._lines,
        )

    # ---- the top

    def _location(self, value: Any) -> str | None:
        if value is None:
            return None
        try:
            location = ProxyLocation(value)
        except ValueError:
            known = ", ".join(repr(str(one)) for one in ProxyLocation)
            self._note("proxy_location", f"wanted one of {known}, found {value!r}")
            return None
        return str(location)

    def _capacity(self, value: Any) -> float | None:
        if value is None:
            return None
        try:
            return float(check_value("", "target_capacity", value, number(0, 100)))
        except OptionError as error:
            self._note("target_capacity", str(error).removeprefix("target_capacity: "))
            return None

    def _accept_unused(self, value: dict[str, Any]) -> None:
        grpc = self._options("grpc_options", value.get("grpc_options"), gRPCOptions)
        if grpc:
            self._warn("grpc_options", "gRPC is not served yet; the options are accepted and change nothing")
        tracing = self._options("tracing_config", value.get("tracing_config"), TracingConfig)
        if tracing and tracing.get("enabled"):
            self._warn(
                "tracing_config", "traces are not written yet; the options are accepted and change nothing"
            )
        if self._options("controller_options", value.get("controller_options"), ControllerOptions):
            self._warn("controller_options", "they are accepted and change nothing")

    # ---- applications

    def _applications(self, value: dict[str, Any]) -> list[ApplicationConfig | None]:
        found = value.get("applications")
        if found is None:
            self._note(
                "applications" if "applications" in value else "", "'applications' is missing; write a list"
            )
            return []
        if not isinstance(found, list):
            self._note(
                "applications", f"wanted a list of applications, found {_shown(found)}; begin each with '- '"
            )
            return []
        return [self.application(f"applications[{index}]", item) for index, item in enumerate(found)]

    def application(self, path: str, value: Any) -> ApplicationConfig | None:
        if not self._is_mapping(path, value, "an application is a mapping with the key 'import_path'"):
            return None
        self._known(path, value, _APPLICATION)
        name = value.get("name", "default")
        self._check(f"{path}.name", lambda checks: checks.application_name(name))
        prefix = value.get("route_prefix", "/")
        self._check(f"{path}.route_prefix", lambda checks: checks.route_prefix(prefix))
        return ApplicationConfig(
            name=name if isinstance(name, str) else "",
            route_prefix=prefix if isinstance(prefix, str) else None,
            import_path=self._import_path(path, value),
            runtime_env=self._runtime_env(f"{path}.runtime_env", value.get("runtime_env")),
            args=self._args(f"{path}.args", value.get("args")),
            deployments=self._deployments(f"{path}.deployments", value.get("deployments")),
            logging=self._options(f"{path}.logging_config", value.get("logging_config"), LoggingConfig),
            autoscaling_policy=self._policy(f"{path}.autoscaling_policy", value.get("autoscaling_policy")),
            external_scaler_enabled=self._is_scaled_outside(path, value),
            given=value,
        )

    def _policy(self, path: str, value: Any) -> PolicyConfig | None:
        if self._options(path, value, AutoscalingPolicy) is None:
            return None
        found = value.get("policy_function")
        if not isinstance(found, str) or found.count(":") > 1 or not (":" in found or "." in found):
            self._note(
                f"{path}.policy_function" if "policy_function" in value else path,
                f"wanted where the policy is, as in 'module:function', found {_shown(found)}",
            )
            return None
        kwargs = value.get("policy_kwargs") or {}
        return PolicyConfig(import_path=found, kwargs=dict(kwargs) if isinstance(kwargs, dict) else {})

    def _is_scaled_outside(self, path: str, value: dict[str, Any]) -> bool:
        given = value.get("external_scaler_enabled", False)
        if not isinstance(given, bool):
            self._note(
                f"{path}.external_scaler_enabled",
                f"wanted true or false, found {_shown(given)}; write one of them",
            )
            return False
        if given:
            self._refuse_own_scaling(path, value)
        return given

    def _refuse_own_scaling(self, path: str, value: dict[str, Any]) -> None:
        """Two that set the same number would undo each other's work."""
        scaled = ["autoscaling_policy"] if value.get("autoscaling_policy") is not None else []
        deployments = value.get("deployments")
        for index, item in enumerate(deployments if isinstance(deployments, list) else ()):
            if not isinstance(item, dict):
                continue
            if item.get("autoscaling_config") is not None:
                scaled.append(f"deployments[{index}].autoscaling_config")
            if item.get("num_replicas") == "auto":
                scaled.append(f"deployments[{index}].num_replicas")
        for inner in scaled:
            self._note(
                f"{path}.{inner}",
                "another program sets the numbers of replicas, as external_scaler_enabled says; remove one of "
                "the two",
            )

    def _import_path(self, path: str, value: dict[str, Any]) -> str:
        found = value.get("import_path")
        wanted = "write where the application is, as in 'module:app'"
        if found is None:
            inner = f"{path}.import_path" if "import_path" in value else path
            self._note(inner, f"'import_path' is missing; {wanted}")
        elif not isinstance(found, str):
            self._note(f"{path}.import_path", f"wanted a string, found {_shown(found)}; {wanted}")
        elif found.count(":") > 1 or not found.strip() or not (":" in found or "." in found):
            self._note(f"{path}.import_path", f"{found!r} does not name an object of a module; {wanted}")
        else:
            return found
        return ""

    def _args(self, path: str, value: Any) -> dict[str, Any]:
        if value is None or not self._is_mapping(path, value, "args are a mapping of names and values"):
            return {}
        return dict(value)

    def _runtime_env(self, path: str, value: Any) -> RuntimeEnv:
        if value is None or not self._is_mapping(
            path, value, "wanted a mapping such as {env_vars: {NAME: value}}"
        ):
            return RuntimeEnv()
        before = len(self.mistakes)
        modules = value.get("py_modules") or []
        for key, item in value.items():
            self._env_entry(f"{path}.{key}", key, item)
        if self._checks is None and "pip" in value:
            self._try(f"{path}.pip", lambda: check_pip(value["pip"]), "pip")
        if len(self.mistakes) > before:
            return RuntimeEnv()
        return RuntimeEnv(
            env_vars=dict(value.get("env_vars") or {}),
            working_dir=value.get("working_dir"),
            py_modules=tuple(modules),
            packages=check_pip(value.get("pip")),
        )

    def _env_entry(self, path: str, key: str, item: Any) -> None:
        near = near_names(key, list(_RUNTIME_ENV))
        if key not in _RUNTIME_ENV and (near or self._checks is None):
            self._note(path, f"unknown key{near or '; the keys here are ' + ', '.join(_RUNTIME_ENV)}")
        else:
            self._check(path, lambda checks: checks.runtime_env({key: item}), key)

    # ---- deployments

    def _deployments(self, path: str, value: Any) -> tuple[DeploymentConfig, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self._note(
                path, f"wanted a list of deployments, found {_shown(value)}; begin each with '- name:'"
            )
            return ()
        found: dict[str, str] = {}
        deployments = []
        for index, item in enumerate(value):
            inner = f"{path}[{index}]"
            deployment = self.deployment(inner, item)
            if deployment is None:
                continue
            if deployment.name in found:
                self._note(
                    inner,
                    f"the deployment {deployment.name!r} stands at {found[deployment.name]} too; join them",
                )
            found[deployment.name] = inner
            deployments.append(deployment)
        return tuple(deployments)

    def deployment(self, path: str, value: Any) -> DeploymentConfig | None:
        if not self._is_mapping(path, value, "a deployment is a mapping with the key 'name'"):
            return None
        name = value.get("name")
        if not isinstance(name, str) or not name:
            self._note(
                f"{path}.name" if "name" in value else path,
                f"wanted the name of a deployment of the application, found {_shown(name)}; write 'name: ...'",
            )
            return None
        options = {key: item for key, item in value.items() if key != "name"}
        before = len(self.mistakes)
        for key, item in options.items():
            self._deployment_option(f"{path}.{key}", key, item)
        if len(self.mistakes) == before:
            self._check(path, lambda checks: checks.deployment_options(name, options))
        return DeploymentConfig(name=name, options=options)

    def _deployment_option(self, path: str, key: str, item: Any) -> None:
        known = self._checks.deployment_keys() if self._checks is not None else ()
        if known and key not in known:
            hint = near_names(key, list(known)) or f"; the options are {', '.join(known)}"
            self._note(path, f"unknown key{hint}")
        elif key == "user_config" and item is not None and not isinstance(item, dict):
            self._note(path, f"wanted a mapping, found {_shown(item)}; give the value a name")
        else:
            self._check(path, lambda checks: checks.deployment_option(key, item), key)

    # ---- rules for all

    def _refuse_doubles(self, applications: list[ApplicationConfig | None]) -> None:
        names: dict[str, int] = {}
        prefixes: dict[str, int] = {}
        for index, application in enumerate(applications):
            if application is None:
                continue
            path = f"applications[{index}]"
            if application.name in names:
                other = f"applications[{names[application.name]}]"
                self._note(
                    self._where(f"{path}.name"),
                    f"the name {application.name!r} is taken by {other}; give each application its own 'name'",
                )
            names.setdefault(application.name, index)
            prefix = application.route_prefix
            if prefix is not None and prefix in prefixes:
                other = f"applications[{prefixes[prefix]}]"
                self._note(
                    self._where(f"{path}.route_prefix"),
                    f"the route_prefix {prefix!r} is taken by {other}; give each application its own",
                )
            if prefix is not None:
                prefixes.setdefault(prefix, index)

    def _options(self, path: str, value: Any, kind: type[Options]) -> dict[str, Any] | None:
        """Check the options of an option class one by one, then together; return what was given."""
        if value is None or not self._is_mapping(path, value, f"wanted a mapping of {kind.__name__}"):
            return None
        before = len(self.mistakes)
        self._known(path, value, kind.option_names())
        for key, item in value.items():
            if key in kind.option_names():
                self._try(f"{path}.{key}", partial(kind.check_option, key, item), key)
        if len(self.mistakes) == before:
            self._try(path, lambda: kind.parse(value))
        return dict(value)

    def _known(self, path: str, value: dict[str, Any], known: tuple[str, ...]) -> None:
        for key in value:
            if key in known:
                continue
            inner = f"{path}.{key}" if path else key
            hint = near_names(key, list(known))
            if not hint:
                hint = (
                    f"; {_MISPLACED[key]}" if key in _MISPLACED else f"; the keys here are {', '.join(known)}"
                )
            self._note(inner, f"unknown key{hint}")

    def _is_mapping(self, path: str, value: Any, wanted: str) -> bool:
        if isinstance(value, dict):
            return True
        self._note(path, f"{wanted}, found {_shown(value)}")
        return False

    def _check(self, path: str, check: Callable[[ConfigChecks], object], key: str = "") -> None:
        checks = self._checks
        if checks is not None:
            self._try(path, lambda: check(checks), key)

    def _try(self, path: str, check: Callable[[], object], key: str = "") -> None:
        try:
            check()
        except (OptionError, TypeError, ValueError, NotImplementedError) as error:
            self._note(self._where(path), str(error).removeprefix(f"{key}: ") if key else str(error))

    def _where(self, path: str) -> str:
        """Return a path that was written; a default that cannot be is told at what it belongs to."""
        path = path.removeprefix(".")
        return path if path in self._lines else path.rpartition(".")[0]

    def _note(self, path: str, text: str) -> None:
        # Of a section by itself, whose own path is empty.
        path = path.removeprefix(".")
        self.mistakes.append(Mistake(self._lines.get(path, 0), path, text))

    def _warn(self, path: str, text: str) -> None:
        self._warnings.append(f"line {self._lines.get(path, 0)}: {path}: {text}")


def _shown(value: Any) -> str:
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:60]}..."
    return "nothing" if value is None else f"{text} of type {type(value).__name__}"
