"""The admin port of an instance: where it listens, whom it answers, and what it refuses to start as."""

from __future__ import annotations

import ipaddress

import msgspec

__all__ = ["DEFAULT_ADMIN_PORT", "TOKEN_FILE", "AdminOptions", "is_loopback"]

#: Ray's dashboard port, so that scripts written for its REST API find ours.
DEFAULT_ADMIN_PORT = 8265
#: In the state directory of the instance; owner-only.
TOKEN_FILE = "admin-token"  # noqa: S105 - the name of a file


class AdminOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an instance serves its admin port."""

    host: str = "127.0.0.1"
    #: 0 takes a free one; None takes 8265, or a free one where that is taken.
    port: int | None = None
    #: Names that a request may carry as its Host, besides loopback's and the bound address.
    allowed_hosts: tuple[str, ...] = ()
    #: Serve plain HTTP off loopback too: whoever can read the network can then read the token.
    allow_plaintext: bool = False
    #: A certificate of its own, as ``ssl_keyfile`` and ``ssl_certfile``; empty shares that of HTTP off loopback.
    tls: dict[str, str] = {}
    #: What the names of metrics begin with: "trygon", or "ray" as in Ray Serve.
    metrics_prefix: str = "trygon"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def problem(self, *, has_tls: bool) -> str:
        """Return why the admin port may not be opened like this; empty when it may."""
        if self.loopback or has_tls or self.allow_plaintext:
            return ""
        return (
            f"the admin port on host {self.host!r} can be reached from other machines, and without TLS the "
            "token that controls this instance would be readable on the way; give http_options ssl_keyfile and "
            "ssl_certfile, or the port its own (TRYGON_ADMIN_SSL_KEYFILE, TRYGON_ADMIN_SSL_CERTFILE), use host '127.0.0.1', or accept the risk with admin_allow_plaintext "
            "(TRYGON_ADMIN_ALLOW_PLAINTEXT=1)"
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback; other names are not looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
