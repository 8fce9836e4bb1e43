"""Options of an instance: where it listens, and what its own processes get."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Any

from trygon.spec.validation import (
    Check,
    OptionError,
    Options,
    boolean,
    integer,
    list_of,
    mapping,
    number,
    option,
    optional,
    string,
)

__all__ = ["ControllerOptions", "DeploymentMode", "HTTPOptions", "ProxyLocation", "gRPCOptions"]


class ProxyLocation(StrEnum):
    """On which hosts ingress processes run; on one machine all but Disabled mean the same."""

    Disabled = "Disabled"
    HeadOnly = "HeadOnly"
    EveryNode = "EveryNode"

    @classmethod
    def _missing_(cls, value: object) -> ProxyLocation | None:
        # The old name of Disabled, still accepted as in Ray Serve.
        return cls.Disabled if value == "NoServer" else None


class DeploymentMode(StrEnum):
    """The older enum of the same three places."""

    NoServer = "NoServer"
    HeadOnly = "HeadOnly"
    EveryNode = "EveryNode"


def _removed(instead: str) -> Check:
    def convert(value: Any) -> Any:
        return value if not value else _raise(instead)

    return Check(instead, convert)


def _raise(instead: str) -> None:
    raise OptionError(f"the option was removed; {instead}")


_LOCATION = Check(
    "'Disabled', 'HeadOnly' or 'EveryNode'",
    lambda value: ProxyLocation(value.value if isinstance(value, DeploymentMode) else value),
)


class HTTPOptions(Options, refuse_unknown=False):
    """Where and how an instance serves HTTP.

    Timeouts are in seconds; ``request_timeout_s=None`` sets no limit.
    ``host=None`` and ``location="Disabled"`` serve no HTTP. Port 0 takes a free port.
    """

    host: str | None = option(default="127.0.0.1", check=optional(string))
    port: int = option(default=8000, check=integer(0, 65535))
    middlewares: list[Any] = option(
        default=[], check=_removed("add middleware to the application given to serve.ingress")
    )
    location: ProxyLocation | None = option(default=None, check=optional(_LOCATION))
    num_cpus: int = option(default=0, check=_removed("ingress processes reserve no CPUs"))
    root_url: str = option(default="", check=string)
    root_path: str = option(default="", check=string)
    request_timeout_s: float | None = option(default=None, check=optional(number()))
    keep_alive_timeout_s: int = option(default=90, check=integer(0))
    ssl_keyfile: str | None = option(default=None, check=optional(string))
    ssl_certfile: str | None = option(default=None, check=optional(string))
    ssl_keyfile_password: str | None = option(default=None, check=optional(string))
    ssl_ca_certs: str | None = option(default=None, check=optional(string))

    def _check(self) -> None:
        if self.host is None:
            self.__dict__["location"] = ProxyLocation.Disabled
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            given, missing = ("ssl_certfile", "ssl_keyfile")
            if self.ssl_certfile is None:
                given, missing = missing, given
            raise OptionError(f"HTTPOptions has {given} without {missing}; HTTPS needs both")
        if self.ssl_ca_certs is not None and self.ssl_certfile is None:
            raise OptionError(
                "HTTPOptions has ssl_ca_certs without ssl_certfile and ssl_keyfile; clients can only be asked "
                "for a certificate over HTTPS"
            )

    def tls_options(self) -> dict[str, str]:
        """Return the TLS options as an instance takes them, empty for plain HTTP; paths are made absolute."""
        found = {
            "ssl_keyfile": self.ssl_keyfile,
            "ssl_certfile": self.ssl_certfile,
            "ssl_ca_certs": self.ssl_ca_certs,
        }
        options = {name: os.path.abspath(path) for name, path in found.items() if path is not None}
        if self.ssl_keyfile_password is not None and options:
            options["ssl_keyfile_password"] = self.ssl_keyfile_password
        return options

    @property
    def is_disabled(self) -> bool:
        """Whether no HTTP is served."""
        return self.location is ProxyLocation.Disabled


class gRPCOptions(Options, refuse_unknown=False):  # noqa: N801 - Ray Serve's name
    """Where and how an instance serves gRPC; no servicer functions, no server."""

    port: int = option(default=9000, check=integer(0, 65535))
    grpc_servicer_functions: list[str] = option(default=[], check=list_of(string))
    request_timeout_s: float | None = option(default=None, check=optional(number()))
    enable_reflection: bool = option(default=True, check=boolean)


def _controller_env(value: Any) -> dict[str, Any]:
    runtime_env: dict[str, Any] = mapping.convert(value)
    extra = sorted(set(runtime_env) - {"env_vars"})
    if extra:
        raise OptionError(f"only 'env_vars' is allowed, found {', '.join(map(repr, extra))}; remove them")
    return runtime_env


class ControllerOptions(Options):
    """What the controller process gets: ``runtime_env={"env_vars": {...}}`` only."""

    runtime_env: dict[str, Any] | None = option(
        default=None, check=optional(Check("a dict with 'env_vars'", _controller_env))
    )
