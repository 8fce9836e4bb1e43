"""The public face: Ray Serve's names, so that ``from ray import serve`` becomes ``from trygon import serve``.

Names are loaded when they are first used: importing this module costs a few milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trygon.dataplane.batch_function import batch
    from trygon.dataplane.handle import DeploymentHandle
    from trygon.dataplane.models.multiplexed import get_multiplexed_model_id, multiplexed
    from trygon.dataplane.responses import DeploymentResponse, DeploymentResponseGenerator
    from trygon.graph.asgi import ingress
    from trygon.graph.deployment import Application, Deployment, RunTarget, deployment
    from trygon.graph.retired import get_deployment, list_deployments
    from trygon.serve.api import (
        delete,
        get_app_handle,
        get_deployment_handle,
        get_replica_context,
        http_address,
        run,
        run_many,
        shutdown,
        shutdown_async,
        start,
        status,
    )
    from trygon.spec.http_options import ControllerOptions, HTTPOptions
    from trygon.spec.logging_options import TracingConfig

__all__ = [
    "Application",
    "ControllerOptions",
    "Deployment",
    "DeploymentHandle",
    "DeploymentResponse",
    "DeploymentResponseGenerator",
    "HTTPOptions",
    "RunTarget",
    "TracingConfig",
    "batch",
    "delete",
    "deployment",
    "get_app_handle",
    "get_deployment",
    "get_deployment_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "http_address",
    "ingress",
    "list_deployments",
    "multiplexed",
    "run",
    "run_many",
    "shutdown",
    "shutdown_async",
    "start",
    "status",
]

_HOMES = {
    "Application": "trygon.graph.deployment",
    "ControllerOptions": "trygon.spec.http_options",
    "Deployment": "trygon.graph.deployment",
    "DeploymentHandle": "trygon.dataplane.handle",
    "DeploymentResponse": "trygon.dataplane.responses",
    "DeploymentResponseGenerator": "trygon.dataplane.responses",
    "HTTPOptions": "trygon.spec.http_options",
    "RunTarget": "trygon.graph.deployment",
    "TracingConfig": "trygon.spec.logging_options",
    "batch": "trygon.dataplane.batch_function",
    "deployment": "trygon.graph.deployment",
    "get_deployment": "trygon.graph.retired",
    "get_multiplexed_model_id": "trygon.dataplane.models.multiplexed",
    "ingress": "trygon.graph.asgi",
    "list_deployments": "trygon.graph.retired",
    "multiplexed": "trygon.dataplane.models.multiplexed",
}

_SUBMODULES = frozenset(
    (
        *("batching", "config", "context", "exceptions", "handle", "metrics", "multiplexing"),
        *("request_router", "schema"),
    )
)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"trygon.serve.{name}")
    if name not in __all__:
        raise AttributeError(f"trygon.serve has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, "trygon.serve.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES})
