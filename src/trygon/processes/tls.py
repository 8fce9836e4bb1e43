"""TLS for the processes that listen: whether an instance has it, and what its connections are made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trygon.clock import RealClock
from trygon.spec.admin import AdminOptions

if TYPE_CHECKING:
    import ssl

__all__ = ["admin_has_tls", "admin_tls_options", "check_tls", "has_tls", "server_tls"]


def has_tls(http_options: dict[str, Any]) -> bool:
    """Whether the HTTP options of an instance name a certificate."""
    return "ssl_certfile" in http_options


def admin_tls_options(options: AdminOptions, http_options: dict[str, Any]) -> dict[str, Any]:
    """Return the TLS options of the admin port: its own, or off loopback those of the ingress."""
    if options.tls:
        return dict(options.tls)
    return {} if options.loopback else http_options


def admin_has_tls(options: AdminOptions, http_options: dict[str, Any]) -> bool:
    """Whether the admin port speaks TLS."""
    return has_tls(admin_tls_options(options, http_options))


def check_tls(http_options: dict[str, Any]) -> None:
    """Check the certificate of an instance that is to be started.

    Raises:
        InstanceError: It cannot be used.
    """
    server_tls(http_options)


def server_tls(http_options: dict[str, Any]) -> Callable[[], ssl.SSLContext] | None:
    """Return what gives each new connection its context, or None for plain HTTP.

    Raises:
        InstanceError: The certificate cannot be used.
    """
    if not has_tls(http_options):
        return None
    # Loads OpenSSL, which plain HTTP does without.
    from trygon.protocols.http.tls import Certificates, TlsFiles

    files = TlsFiles.of(http_options)
    assert files is not None, "the options were checked together"
    return Certificates(files, RealClock().monotonic).context
