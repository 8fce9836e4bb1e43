"""What the top of a configuration can change in an instance that runs, and what needs a new start. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trygon.spec.http_options import HTTPOptions, ProxyLocation
from trygon.spec.routing import HttpTimeouts

__all__ = ["fixed_problems", "wanted_timeouts"]

#: They take effect for the next request.
_LIVE = frozenset({"request_timeout_s", "keep_alive_timeout_s"})
_SECRET = "ssl_keyfile_password"  # noqa: S105 - the name of an option
_REMEDY = "it counts when an instance is started: shut it down and start it with this configuration, or leave it out"


def wanted_timeouts(http_options: Mapping[str, Any], *, keep_alive_s: float = 0.0) -> HttpTimeouts | None:
    """Return the timeouts that `http_options` ask for, defaults included; None where nothing is said at all.

    Args:
        http_options: As they were given, checked.
        keep_alive_s: Above zero, overrides the option, as the environment may say.
    """
    if not http_options:
        return None
    wanted = HTTPOptions(**http_options)
    return HttpTimeouts(
        request_timeout_s=wanted.request_timeout_s or 0.0,
        keep_alive_timeout_s=keep_alive_s or float(wanted.keep_alive_timeout_s),
    )


def fixed_problems(
    http_options: Mapping[str, Any],
    proxy_location: str | None,
    running: Mapping[str, Any],
    *,
    serves_http: bool,
) -> tuple[str, ...]:
    """Return what a configuration asks for that a running instance cannot become, each with what to do.

    Args:
        http_options: As they were given, checked.
        proxy_location: As it was given.
        running: The options of the instance as it runs, under the same names.
        serves_http: Whether the instance has ingress processes.
    """
    wanted = HTTPOptions(**http_options)
    values = {**wanted.model_dump(), **wanted.tls_options()}
    problems = []
    for name in HTTPOptions.option_names():
        # Port 0 takes any, so the one it has will do.
        is_any = name in _LIVE or name == "location" or (name == "port" and not values[name])
        found = running.get(name, HTTPOptions().model_dump()[name])
        if name not in http_options or is_any or not serves_http or values[name] == found:
            continue
        shown = (
            ""
            if name == _SECRET
            else f" is {found!r} in the running instance, and {values[name]!r} is wanted"
        )
        problems.append(f"http_options.{name}{shown or ' is another one in the running instance'}; {_REMEDY}")
    location = ProxyLocation(proxy_location) if proxy_location is not None else wanted.location
    asked = not (location is ProxyLocation.Disabled or wanted.is_disabled)
    if (location is not None or "host" in http_options) and asked != serves_http:
        has = "serves HTTP" if serves_http else "serves no HTTP"
        problems.append(
            f"proxy_location: the running instance {has}, and {str(location)!r} is wanted; {_REMEDY}"
        )
    return tuple(problems)
