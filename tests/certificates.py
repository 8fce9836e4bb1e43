"""Certificates for tests, made by an authority of their own."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import trustme

from trygon.protocols.http.tls import TlsFiles

__all__ = ["Authority"]


class Authority:
    """Signs certificates for the loopback, and trusts them.

    Args:
        folder: Where its files go.
    """

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.folder = folder
        self.ca_certs = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_certs)

    def write(self, keyfile: str = "key.pem", certfile: str = "cert.pem") -> TlsFiles:
        """Make a new certificate in these files, each replaced whole as certificate tools do."""
        issued = self._ca.issue_cert("localhost", "127.0.0.1", "::1")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        for name, data in ((keyfile, issued.private_key_pem.bytes()), (certfile, chain)):
            new = self.folder / f"{name}.new"
            new.write_bytes(data)
            os.replace(new, self.folder / name)
        return TlsFiles(keyfile=str(self.folder / keyfile), certfile=str(self.folder / certfile))

    def client(self, *, has_certificate: bool = False) -> ssl.SSLContext:
        """Return what a client connects with."""
        context = ssl.create_default_context(cafile=str(self.ca_certs))
        if has_certificate:
            self._ca.issue_cert("somebody@example.org").configure_cert(context)
        return context
