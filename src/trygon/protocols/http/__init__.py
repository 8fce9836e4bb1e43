"""The HTTP/1.1 and websocket front of the ingress: strict, bounded, one callback chain for each request."""

from __future__ import annotations

from trygon.protocols.http.server import HttpServer, HttpStatistics
from trygon.protocols.http.settings import HttpSettings

__all__ = ["HttpServer", "HttpSettings", "HttpStatistics"]
