"""Who may use the admin port: Host, Origin and token of a request, in this order. Pure.

A page in a browser of this machine can send requests to loopback, and a name that it controls can be made
to point here; so neither a connection from loopback nor a plain GET proves anything about its sender.
"""

from __future__ import annotations

import hmac
from typing import Final

from trygon.protocols.admin.answers import Answer, failure
from trygon.protocols.admin.routes import find_route
from trygon.spec.admin import AdminOptions

__all__ = ["Access"]

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_WILDCARDS: Final = ("", "0.0.0.0", "::")
#: What a browser sends for a page of this very origin, and for an address that a person typed.
_OWN_SITES: Final = (b"same-origin", b"none")
_CHALLENGE: Final = (("www-authenticate", 'Bearer realm="trygon admin"'),)

_Headers = list[tuple[bytes, bytes]]


class Access:
    """Judges requests before anything of them is acted on.

    Args:
        token: What a request must carry as ``Authorization: Bearer``.
        options: Where the port listens, and for whom.
        scheme: "http" or "https".
    """

    def __init__(self, token: str, options: AdminOptions, *, scheme: str = "http") -> None:
        self._token = token.encode()
        self._scheme = scheme
        self._open_routes = options.loopback
        names = {*_LOOPBACK_NAMES, *(_bare(name) for name in options.allowed_hosts)}
        if options.host not in _WILDCARDS:
            names.add(_bare(options.host))
        self._names = names

    def refuse(self, method: str, raw_path: bytes, headers: _Headers, local_address: str) -> Answer | None:
        """Return the answer to a request that may not pass, or None.

        Args:
            method: As sent.
            raw_path: As sent.
            headers: Names in lower case.
            local_address: The address of this machine that the client connected to.
        """
        host = _values(headers, b"host")
        if len(host) != 1 or not self._is_ours(host[0], local_address):
            shown = b", ".join(host).decode("latin-1")
            return failure(
                421,
                f"the Host {shown!r} is not a name of this admin port; use the address that it listens on, "
                "or add the name to admin_allowed_hosts (TRYGON_ADMIN_ALLOWED_HOSTS)",
            )
        if self._is_foreign(headers, host[0]):
            return failure(
                403, "a page of another site may not use this port; call it from a program instead of a page"
            )
        if method in ("GET", "HEAD") and self._open_routes:
            found = find_route(raw_path)
            if found is not None and found.route.open_on_loopback:
                return None
        if not self._has_token(headers):
            return failure(
                401,
                "the request needs the header 'Authorization: Bearer TOKEN'; `trygon token` prints the token",
                headers=_CHALLENGE,
            )
        return None

    def _is_ours(self, host: bytes, local_address: str) -> bool:
        # The port is not compared: tunnels and containers map it.
        name = _bare(host.decode("latin-1"), has_port=True)
        return name in self._names or (bool(name) and name == _bare(local_address))

    def _is_foreign(self, headers: _Headers, host: bytes) -> bool:
        """Whether a browser says that a page of another origin sends this; no Origin is no browser's page."""
        own = f"{self._scheme}://".encode() + host.lower()
        origins = _values(headers, b"origin")
        sites = _values(headers, b"sec-fetch-site")
        return any(origin.lower() != own for origin in origins) or any(
            site not in _OWN_SITES for site in sites
        )

    def _has_token(self, headers: _Headers) -> bool:
        given = _values(headers, b"authorization")
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        # Compared to the end whatever differs first, so that the time of an answer says nothing.
        return hmac.compare_digest(token.strip(b" "), self._token) and scheme.lower() == b"bearer"


def _values(headers: _Headers, name: bytes) -> list[bytes]:
    return [value for found, value in headers if found == name]


def _bare(host: str, *, has_port: bool = False) -> str:
    """Return a host without brackets, port, final dot, zone and capitals."""
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif has_port:
        name = name.partition(":")[0]
    return name.partition("%")[0].removesuffix(".")
