"""The admin API of an instance: Ray Serve's REST routes, metrics and health, behind a token.

It checks, decodes, calls its backend and encodes; what is wanted and what runs is the controller's.
"""

from __future__ import annotations

from trygon.protocols.admin.access import Access
from trygon.protocols.admin.application import AdminApplication, AdminBackend
from trygon.protocols.admin.gateway import AdminGateway
from trygon.protocols.admin.routes import ROUTES, Route

__all__ = ["ROUTES", "Access", "AdminApplication", "AdminBackend", "AdminGateway", "Route"]
