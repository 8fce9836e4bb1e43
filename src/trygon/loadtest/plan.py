"""What to send, to whom and how fast, as values; and the bytes of a request."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from trygon.errors import ConfigError
from trygon.loadtest.schedule import Phase

__all__ = ["LoadPlan", "Target", "TlsFiles", "encode_request", "parse_url"]

_PORTS = {"http": 80, "https": 443}
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FRAMING = frozenset(("content-length", "transfer-encoding", "connection"))


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """How to speak TLS; paths are files in PEM."""

    is_verified: bool = True
    ca_cert: str | None = None
    cert: str | None = None
    key: str | None = None


class Target(msgspec.Struct, frozen=True):
    """Who is asked."""

    scheme: str
    host: str
    port: int
    #: Path and query.
    path: str

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.authority}{self.path}"


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one sender has to know. Durations are in seconds."""

    target: Target
    #: Where the name was found to lead.
    address: str
    tls: TlsFiles | None = None
    #: Whole requests, sent one after the other and then from the first again.
    requests: tuple[bytes, ...]
    is_head: bool = False
    #: At most this many at once; in a closed loop exactly this many.
    connections: int = 64
    #: Share of the requests that get a connection of their own.
    new_connections: float = 0.0
    #: An open loop when there are any.
    phases: tuple[Phase, ...] = ()
    is_poisson: bool = True
    seed: int = 0
    #: This sender's number among all, for schedules that they share.
    number: int = 0
    senders: int = 1
    #: Sent and not counted, at first.
    warmup_s: float = 0.0
    #: Counted; without the warm-up.
    duration_s: float | None = None
    #: Ends earlier after so many; without those of the warm-up.
    max_requests: int | None = None
    timeout_s: float = 10.0


def parse_url(text: str) -> Target:
    """Return what a URL names; 'http://' may be left out.

    Raises:
        ConfigError: It is no URL of HTTP.
    """
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{text!r} is no URL: {error}") from None
    if parts.scheme not in _PORTS:
        raise ConfigError(f"wanted a URL that begins with http:// or https://, found {text!r}")
    if not parts.hostname:
        raise ConfigError(f"the URL {text!r} names no host; write for example http://127.0.0.1:8000/")
    if parts.username is not None:
        raise ConfigError(
            "a password in the URL would be seen in lists of processes; use --bearer-file or -H"
        )
    path = parts.path or "/"
    path += f"?{parts.query}" if parts.query else ""
    if any(character <= " " or character > "~" for character in path):
        raise ConfigError(f"the path {path!r} has characters that must be written as %XX")
    return Target(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path)


def encode_request(
    target: Target, method: str, headers: Iterable[tuple[str, str]], body: bytes, *, closes: bool = False
) -> bytes:
    """Return the bytes of one request.

    Raises:
        ConfigError: A method or header that HTTP does not allow, or that this function has to write itself.
    """
    if not method or not _TOKEN.issuperset(method):
        raise ConfigError(f"{method!r} is no HTTP method")
    lines = [f"{method} {target.path} HTTP/1.1"]
    given = {name.lower() for name, _ in headers}
    if "host" not in given:
        lines.append(f"Host: {target.authority}")
    if "user-agent" not in given:
        lines.append("User-Agent: trygon-load")
    for name, value in headers:
        if (
            not name
            or not _TOKEN.issuperset(name)
            or any(c in value for c in "\r\n\0")
            or not _is_latin(value)
        ):
            raise ConfigError(f"{name!r} is no header that HTTP allows; write -H 'Name: value'")
        if name.lower() in _FRAMING:
            raise ConfigError(f"the header {name!r} is written by trygon load itself; leave it out")
        lines.append(f"{name}: {value}")
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    if closes:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _is_latin(text: str) -> bool:
    return all(ord(character) < 256 for character in text)
