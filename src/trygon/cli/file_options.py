"""What a configuration file means to a command: which targets are files, and what their options do at a start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import click

__all__ = ["FileOptions", "is_config_file", "read_file_options", "refuse_single_options"]


class FileOptions(NamedTuple):
    """Where and how an instance serves HTTP."""

    #: None when the file does not say.
    host: str | None
    port: int
    serves_http: bool
    #: As an ingress reads them.
    http_options: dict[str, Any]


def is_config_file(target: str) -> bool:
    """Return whether what was named is a configuration file, not an import path."""
    return target.lower().endswith((".yaml", ".yml", ".json"))


def refuse_single_options(arguments: Mapping[str, str], given: Mapping[str, bool]) -> None:
    """Raise UsageError when options of a single application are given together with a file.

    Args:
        arguments: Those for an application builder.
        given: For each option whether it was given.
    """
    if arguments:
        name = next(iter(arguments))
        raise click.UsageError(f"{name}=... is for one application; write it into 'args' of the file")
    for option, is_given in given.items():
        if is_given:
            raise click.UsageError(f"{option} is for one application; write it into the configuration file")


def read_file_options(given: dict[str, Any], proxy_location: str | None) -> FileOptions:
    """Read the http_options of a file that was checked."""
    from trygon.spec.http_options import HTTPOptions, ProxyLocation

    http = HTTPOptions(**given)
    location = ProxyLocation(proxy_location) if proxy_location is not None else http.location
    options: dict[str, Any] = {
        "root_path": http.root_path,
        "keep_alive_timeout_s": http.keep_alive_timeout_s,
        **http.tls_options(),
    }
    if http.request_timeout_s is not None:
        options["request_timeout_s"] = http.request_timeout_s
    return FileOptions(
        host=http.host if "host" in given else None,
        port=http.port,
        serves_http=not http.is_disabled and location is not ProxyLocation.Disabled,
        http_options=options,
    )
