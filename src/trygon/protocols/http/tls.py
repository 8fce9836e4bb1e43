"""Certificates of a server: checked before anything starts, loaded again when their files change.

Connections that are open keep what they began with; new ones get the new certificate. A file that does not
load is told once, and the certificate before it serves on.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from typing import Any

import msgspec

from trygon.errors import InstanceError

__all__ = ["Certificates", "TlsFiles", "make_context"]

logger = logging.getLogger("trygon.http")

#: Files are looked at when a connection comes, and no more often than this.
_LOOK_S = 1.0

#: What tells one content of a file from another without reading it.
_Signature = tuple[tuple[int, int, int], ...]


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server's certificate is, in PEM."""

    keyfile: str
    #: The certificate, followed by those that it was signed with.
    certfile: str
    keyfile_password: str | None = None
    #: Certificate authorities of clients; with it, a client without a certificate of theirs is refused.
    ca_certs: str | None = None

    @classmethod
    def of(cls, http_options: dict[str, Any]) -> TlsFiles | None:
        """Return the files that the HTTP options of an instance name, or None for plain HTTP."""
        keyfile, certfile = http_options.get("ssl_keyfile"), http_options.get("ssl_certfile")
        if keyfile is None or certfile is None:
            return None
        return cls(
            keyfile=keyfile,
            certfile=certfile,
            keyfile_password=http_options.get("ssl_keyfile_password"),
            ca_certs=http_options.get("ssl_ca_certs"),
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file."""
        return (self.keyfile, self.certfile, *([self.ca_certs] if self.ca_certs is not None else []))


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """Return what connections are made with: TLS 1.2 or later.

    Raises:
        InstanceError: A file cannot be read, is not what it should be, or does not fit the others.
    """
    for option, path in (
        ("ssl_keyfile", files.keyfile),
        ("ssl_certfile", files.certfile),
        ("ssl_ca_certs", files.ca_certs),
    ):
        if path is not None:
            _check_readable(option, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, files)
    if files.ca_certs is not None:
        try:
            context.load_verify_locations(files.ca_certs)
        except (ssl.SSLError, ValueError) as error:
            raise InstanceError(
                f"ssl_ca_certs {files.ca_certs!r} holds no certificates in PEM that can be used ({_reason(error)}); "
                "give the certificates of the authorities that sign your clients'"
            ) from None
        if not context.cert_store_stats()["x509_ca"]:
            raise InstanceError(
                f"ssl_ca_certs {files.ca_certs!r} holds no certificate of an authority, so no client could connect; "
                "give the certificates of the authorities that sign your clients'"
            )
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    # Without a password OpenSSL would ask at the terminal, and wait for ever.
    password = files.keyfile_password or ""
    try:
        context.load_cert_chain(files.certfile, files.keyfile, password=lambda: password)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = _reason(error)
        if "KEY_VALUES_MISMATCH" in reason or "key values mismatch" in reason:
            what = "does not belong to the certificate; give the key that it was made with"
        elif _is_encrypted(files.keyfile):
            given = "is wrong" if files.keyfile_password else "is missing"
            what = f"is encrypted, and ssl_keyfile_password {given} ({reason})"
        else:
            what = f"cannot be used with it ({reason}); both must be PEM, the key without other text"
        raise InstanceError(
            f"ssl_keyfile {files.keyfile!r} and ssl_certfile {files.certfile!r}: the key {what}"
        ) from None


def _check_readable(option: str, path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise InstanceError(
            f"{option} {path!r} cannot be read: {error.strerror}; name a PEM file that this user may read"
        ) from None


def _is_encrypted(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"ENCRYPTED" in file.read(65536)
    except OSError:
        return False


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


class Certificates:
    """The certificate for the next connection.

    Args:
        files: Where it is.
        monotonic: Tells the time.

    Raises:
        InstanceError: It cannot be used as it is.
    """

    def __init__(self, files: TlsFiles, monotonic: Callable[[], float]) -> None:
        self._files = files
        self._monotonic = monotonic
        #: Taken before the files are read, so that a change meanwhile is seen by the next look.
        self._signature = _signature(files)
        self._context = make_context(files)
        self._look_at = monotonic() + _LOOK_S

    def context(self) -> ssl.SSLContext:
        """Return what the next connection is made with, looking for newer files first."""
        now = self._monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            self._renew()
        return self._context

    def _renew(self) -> None:
        signature = _signature(self._files)
        if signature == self._signature:
            return
        # A set of files that does not load is tried once: half of it may still be being written.
        self._signature = signature
        try:
            self._context = make_context(self._files)
        except InstanceError as error:
            logger.error("the new certificate cannot be used, and the one before serves on: %s", error)
            return
        logger.info("new connections use the new certificate in %s", self._files.certfile)


def _signature(files: TlsFiles) -> _Signature:
    found = []
    for path in files.paths:
        try:
            status = os.stat(path)
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
