"""The deployments of the application, as the routes see them.

The ingress binds handles to the others and keeps them in `app.state.services`;
a router gets them by `Depends(services)`.

    Forecasts   the ingress (FastAPI): forecasts, stores, health, the page; many replicas, no MLflow, no training
    Catalog     one replica: the only process that speaks to the registry while serving
    Trainer     one replica: jobs; trains in a process of its own with low priority
    Monitor     one replica: forecasts that were served, sales that came later, errors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from trygon.serve.handle import DeploymentHandle

__all__ = ["Services", "services"]


@dataclass(frozen=True)
class Services:
    """Handles to the deployments behind the ingress."""

    catalog: DeploymentHandle
    trainer: DeploymentHandle
    monitor: DeploymentHandle


def services(request: Request) -> Services:
    """Return the handles, as a FastAPI dependency."""
    return cast(Services, request.app.state.services)
