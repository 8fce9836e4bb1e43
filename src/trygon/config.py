"""Settings of this process and its children: the only reader of the environment.

A composition root calls `Settings.from_environ(os.environ)` once and hands the value down;
nothing below reads a variable by itself, so a test gives settings instead of patching.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar

from trygon.errors import InstanceError
from trygon.spec.admin import AdminOptions

__all__ = [
    "LATENCY_BUCKETS_MS",
    "Settings",
    "SettingsError",
    "admin_options",
    "make_private_dir",
    "read_settings",
]

T = TypeVar("T")

LATENCY_BUCKETS_MS = (
    *(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0),
    *(1_000.0, 2_000.0, 5_000.0, 10_000.0, 60_000.0, 120_000.0, 300_000.0, 600_000.0),
)

#: A Unix socket path holds 104 bytes on macOS, 108 on Linux; the rest is for instance and socket names.
MAX_RUNTIME_DIR_BYTES = 60

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")


class SettingsError(InstanceError, ValueError):
    """An environment variable holds something it cannot mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, typed and checked.

    Variables whose names start with `RAY_SERVE_` mean what they mean to Ray Serve.
    """

    #: `TRYGON_HOME`: durable state, code snapshots and logs of the instances.
    home: Path
    #: `TRYGON_RUNTIME_DIR`: sockets; its path is short, because theirs must be.
    runtime_dir: Path
    #: `TRYGON_INSTANCE`: the instance to join, or None for the user's single running one.
    instance: str | None = None
    #: `TRYGON_NUM_INGRESS`: ingress processes of an instance that is started from here.
    num_ingress: int = 1
    #: `TRYGON_ADMIN_PORT`: opens the admin port of any instance that is started from here; None leaves it to
    #: detached ones, "off" never opens it, 0 takes a free one.
    admin_port: int | Literal["off"] | None = None
    #: `TRYGON_ADMIN_HOST`: where the admin port listens.
    admin_host: str = "127.0.0.1"
    #: `TRYGON_ADMIN_ALLOWED_HOSTS`: names that requests to it may carry as Host, separated by commas.
    admin_allowed_hosts: tuple[str, ...] = ()
    #: `TRYGON_ADMIN_ALLOW_PLAINTEXT`: plain HTTP off loopback too.
    admin_allow_plaintext: bool = False
    #: `TRYGON_ADMIN_SSL_KEYFILE`, `TRYGON_ADMIN_SSL_CERTFILE`: a certificate of its own for the admin port.
    admin_ssl_keyfile: Path | None = None
    admin_ssl_certfile: Path | None = None
    #: `TRYGON_METRICS_PREFIX`: "trygon", or "ray" for the names that Ray Serve's dashboards ask for.
    metrics_prefix: Literal["trygon", "ray"] = "trygon"
    #: `TRYGON_METRICS`: "on"; "basic" measures no stages of requests, "off" counts nothing.
    metrics: Literal["on", "basic", "off"] = "on"
    #: `TRYGON_LOG_LEVEL`: level of the system's own log lines.
    log_level: str = "INFO"
    #: `TRYGON_ROTATION_MAX_BYTES`: a log file is begun anew beyond it; None leaves it to each kind of file.
    rotation_max_bytes: int | None = None
    #: `TRYGON_ROTATION_BACKUP_COUNT`: older log files that are kept beside each; None as above.
    rotation_backup_count: int | None = None

    #: `RAY_SERVE_DEFAULT_HTTP_HOST`: where the ingress binds when `http_options` name no host.
    default_http_host: str = "127.0.0.1"
    #: `RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S`: above zero, overrides the option.
    http_keep_alive_timeout_s: float = 0.0
    #: `RAY_SERVE_FORCE_LOCAL_TESTING_MODE`: `serve.run` keeps every deployment in the calling process.
    force_local_testing_mode: bool = False
    #: `RAY_SERVE_RUN_SYNC_IN_THREADPOOL`: False runs sync methods on the replica's event loop.
    run_sync_in_threadpool: bool = True
    #: `RAY_SERVE_FREEZE_GC_ON_STARTUP`: freeze the garbage collector after the constructor.
    freeze_gc_on_startup: bool = True
    #: `RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS`: kill them instead of draining.
    force_stop_unhealthy_replicas: bool = False
    #: `RAY_SERVE_SESSION_ID_HEADER_KEY`: lower case.
    session_id_header: str = "x-session-id"
    #: `RAY_SERVE_LOG_TO_STDERR`: False keeps log lines out of the terminal of `trygon run`.
    log_to_stderr: bool = True
    #: `RAY_SERVE_LOG_CLIENT_ADDRESS`: access log lines name the client.
    log_client_address: bool = False
    #: `RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE`: lines kept back before a write; 1 writes once in a turn of the loop.
    request_path_log_buffer_size: int = 1
    #: `RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS`: ascending bounds.
    request_latency_buckets_ms: tuple[float, ...] = LATENCY_BUCKETS_MS
    #: `RAY_SERVE_MODEL_LOAD_LATENCY_BUCKETS_MS`: ascending bounds.
    model_load_latency_buckets_ms: tuple[float, ...] = LATENCY_BUCKETS_MS

    #: `RAY_SERVE_*` and `TRYGON_*` variables that are set and change nothing here; worth one warning.
    without_effect: tuple[str, ...] = field(default=(), compare=False)

    @property
    def own_latency_buckets_ms(self) -> tuple[float, ...] | None:
        """The bounds of latencies that somebody chose; None when nobody did."""
        chosen = self.request_latency_buckets_ms
        return None if chosen == LATENCY_BUCKETS_MS else chosen

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings out of an environment.

        Raises:
            SettingsError: A variable is malformed; the message names it, its value and what it may hold.
        """
        read = _Reader(environ)
        return cls(
            home=read("TRYGON_HOME", _absolute_path, None) or _home_dir(environ) / ".trygon",
            runtime_dir=read("TRYGON_RUNTIME_DIR", _short_path, None) or _default_runtime_dir(environ),
            instance=read("TRYGON_INSTANCE", _instance_name, None),
            num_ingress=read("TRYGON_NUM_INGRESS", _count(1, 64), 1),
            admin_port=read("TRYGON_ADMIN_PORT", _admin_port, None),
            admin_host=read("TRYGON_ADMIN_HOST", _host, "127.0.0.1"),
            admin_allowed_hosts=read("TRYGON_ADMIN_ALLOWED_HOSTS", _hosts, ()),
            admin_allow_plaintext=read("TRYGON_ADMIN_ALLOW_PLAINTEXT", _flag, False),
            admin_ssl_keyfile=read("TRYGON_ADMIN_SSL_KEYFILE", _absolute_path, None),
            admin_ssl_certfile=read("TRYGON_ADMIN_SSL_CERTFILE", _absolute_path, None),
            metrics_prefix=read("TRYGON_METRICS_PREFIX", _metrics_prefix, "trygon"),
            metrics=read("TRYGON_METRICS", _metrics, "on"),
            log_level=read("TRYGON_LOG_LEVEL", _level, "INFO"),
            rotation_max_bytes=read("TRYGON_ROTATION_MAX_BYTES", _count(1024, 999_999_999_999), None),
            rotation_backup_count=read("TRYGON_ROTATION_BACKUP_COUNT", _count(1, 1000), None),
            default_http_host=read("RAY_SERVE_DEFAULT_HTTP_HOST", _host, "127.0.0.1"),
            http_keep_alive_timeout_s=read("RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S", _seconds, 0.0),
            force_local_testing_mode=read("RAY_SERVE_FORCE_LOCAL_TESTING_MODE", _flag, False),
            run_sync_in_threadpool=read("RAY_SERVE_RUN_SYNC_IN_THREADPOOL", _flag, True),
            freeze_gc_on_startup=read("RAY_SERVE_FREEZE_GC_ON_STARTUP", _flag, True),
            force_stop_unhealthy_replicas=read("RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS", _flag, False),
            session_id_header=read("RAY_SERVE_SESSION_ID_HEADER_KEY", _header_name, "x-session-id"),
            log_to_stderr=read("RAY_SERVE_LOG_TO_STDERR", _flag, True),
            log_client_address=read("RAY_SERVE_LOG_CLIENT_ADDRESS", _flag, False),
            request_path_log_buffer_size=read(
                "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE", _count(1, 100_000), 1
            ),
            request_latency_buckets_ms=read(
                "RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS", _buckets, LATENCY_BUCKETS_MS
            ),
            model_load_latency_buckets_ms=read(
                "RAY_SERVE_MODEL_LOAD_LATENCY_BUCKETS_MS", _buckets, LATENCY_BUCKETS_MS
            ),
            without_effect=read.leftovers(),
        )


def admin_options(
    settings: Settings,
    *,
    attached: bool,
    port: int | None = None,
    metrics_prefix: Literal["trygon", "ray"] | None = None,
) -> AdminOptions | None:
    """Return how a new instance serves its admin port, or None for not at all.

    Args:
        settings: This process's.
        attached: An instance that ends with its program has none unless somebody asks for it.
        port: Asks for it; None leaves it to the settings.
        metrics_prefix: What the names of metrics begin with; None leaves it to the settings.

    Raises:
        SettingsError: A certificate without its key, or the other way round.
    """
    chosen = settings.admin_port if port is None else port
    if chosen == "off" or (chosen is None and attached):
        return None
    return AdminOptions(
        host=settings.admin_host,
        port=chosen,
        allowed_hosts=settings.admin_allowed_hosts,
        allow_plaintext=settings.admin_allow_plaintext,
        tls=_admin_tls(settings),
        metrics_prefix=metrics_prefix or settings.metrics_prefix,
    )


def _admin_tls(settings: Settings) -> dict[str, str]:
    found = {"ssl_keyfile": settings.admin_ssl_keyfile, "ssl_certfile": settings.admin_ssl_certfile}
    given = {name: str(path) for name, path in found.items() if path is not None}
    if len(given) == 1:
        raise SettingsError(
            f"the admin port has {next(iter(given))} only; give both TRYGON_ADMIN_SSL_KEYFILE and "
            "TRYGON_ADMIN_SSL_CERTFILE (--admin-ssl-keyfile, --admin-ssl-certfile), or neither"
        )
    return given


def read_settings() -> Settings:
    """Read the settings of this process."""
    return Settings.from_environ(os.environ)


def make_private_dir(path: Path, *, what: str) -> Path:
    """Make sure that `path` is a directory of ours that nobody else can enter.

    Parents that do not exist are made as private. A symbolic link as the last part is refused:
    in a shared folder such as /tmp, somebody else may have put it there.

    Args:
        path: The directory.
        what: Its name in an error, such as "TRYGON_RUNTIME_DIR".

    Raises:
        InstanceError: It belongs to somebody else, is open to others, or is no directory.
    """
    try:
        for missing in reversed([path, *path.parents]):
            if not missing.exists() and not missing.is_symlink():
                missing.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise InstanceError(
            f"cannot make the directory {str(path)!r} ({what}): {error.strerror or error}; "
            "set the variable to one that you may write"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a file"
        raise InstanceError(
            f"want a directory of your own at {str(path)!r} ({what}), found {kind}; remove it"
        )
    if found.st_uid != os.geteuid():
        raise InstanceError(
            f"the directory {str(path)!r} ({what}) belongs to user {found.st_uid}, not to you ({os.geteuid()}); "
            "set the variable to a directory of your own"
        )
    if found.st_mode & 0o077:
        raise InstanceError(
            f"the directory {str(path)!r} ({what}) is open to other users (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run: chmod 700 {path}"
        )
    return path


class _Reader:
    """Reads variables by name, and remembers which ones."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._read: set[str] = set()

    def __call__(self, name: str, parse: Callable[[str], T], default: T) -> T:
        self._read.add(name)
        text = self._environ.get(name, "")
        if not text:
            # Empty is unset, as shells and compose files have no other way to say so.
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"the environment variable {name} is {text!r}; want {error}") from None

    def leftovers(self) -> tuple[str, ...]:
        """Return variables that look like settings and are none."""
        return tuple(
            sorted(
                name
                for name, text in self._environ.items()
                if text and name.startswith(("RAY_SERVE_", "TRYGON_")) and name not in self._read
            )
        )


def _home_dir(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    try:
        return Path(home) if os.path.isabs(home) else Path.home()
    except RuntimeError:
        raise SettingsError(
            "you have no home directory; set TRYGON_HOME to a directory of your own"
        ) from None


def _default_runtime_dir(environ: Mapping[str, str]) -> Path:
    """Return $XDG_RUNTIME_DIR/trygon if that will do, else a folder in /tmp that carries the user's id."""
    xdg = environ.get("XDG_RUNTIME_DIR", "")
    # Containers and `su` hand down the variable of a folder that is not there, or not ours.
    if os.path.isabs(xdg) and os.access(xdg, os.W_OK | os.X_OK) and os.stat(xdg).st_uid == os.geteuid():
        preferred = Path(xdg) / "trygon"
        if len(os.fsencode(preferred)) <= MAX_RUNTIME_DIR_BYTES:
            return preferred
    return Path(f"/tmp/trygon-{os.geteuid()}")  # noqa: S108 - checked for owner and mode by make_private_dir


def _absolute_path(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ValueError("an absolute path")
    return path


def _short_path(text: str) -> Path:
    path = _absolute_path(text)
    length = len(os.fsencode(path))
    if length > MAX_RUNTIME_DIR_BYTES:
        raise ValueError(
            f"a path of at most {MAX_RUNTIME_DIR_BYTES} bytes (this one has {length}), "
            "because Unix socket paths are limited to 104"
        )
    return path


def _instance_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("up to 24 letters, digits, '.', '_' and '-', starting with a letter or digit")
    return text


def _host(text: str) -> str:
    if text.strip() != text or any(character.isspace() or character in "/@" for character in text):
        raise ValueError("a host name or an IP address")
    return text


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(_host(part.strip()) for part in text.split(",") if part.strip())


def _admin_port(text: str) -> int | Literal["off"]:
    if text == "off":
        return "off"
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError("a port from 0 to 65535 (0 takes a free one), or 'off'")
    return int(text)


def _metrics_prefix(text: str) -> Literal["trygon", "ray"]:
    if text == "trygon":
        return "trygon"
    if text == "ray":
        return "ray"
    raise ValueError("'trygon' or 'ray'")


def _metrics(text: str) -> Literal["on", "basic", "off"]:
    if text == "on":
        return "on"
    if text == "basic":
        return "basic"
    if text == "off":
        return "off"
    raise ValueError("'on', 'basic' or 'off'")


def _header_name(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise ValueError("the name of an HTTP header, such as 'x-session-id'")
    return text.lower()


def _level(text: str) -> str:
    level = text.upper()
    if level not in _LEVELS:
        raise ValueError(f"one of {', '.join(_LEVELS)}")
    return level


def _flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("0 or 1")
    return text == "1"


def _seconds(text: str) -> float:
    value = _number(text, "a number of seconds")
    if value < 0:
        raise ValueError("a number of seconds that is not negative")
    return value


def _count(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def _buckets(text: str) -> tuple[float, ...]:
    wanted = "numbers above zero in ascending order, separated by commas"
    values = tuple(_number(part.strip(), wanted) for part in text.split(","))
    if values[0] <= 0 or any(low >= high for low, high in pairwise(values)):
        raise ValueError(wanted)
    return values


def _number(text: str, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(wanted) from None
    if not math.isfinite(value):
        raise ValueError(wanted)
    return value
