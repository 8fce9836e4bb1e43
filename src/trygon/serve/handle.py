"""Handles and responses, as `ray.serve.handle` names them."""

from __future__ import annotations

from trygon.dataplane.handle import DeploymentHandle
from trygon.dataplane.responses import DeploymentResponse, DeploymentResponseGenerator
from trygon.dataplane.selections import BroadcastResponse as DeploymentBroadcastResponse
from trygon.dataplane.selections import ReplicaSelection

__all__ = [
    "DeploymentBroadcastResponse",
    "DeploymentHandle",
    "DeploymentResponse",
    "DeploymentResponseGenerator",
    "ReplicaSelection",
]
