"""Option classes, as `ray.serve.config` names them."""

from __future__ import annotations

from trygon.scaling.context import AutoscalingContext
from trygon.spec.autoscaling import AggregationFunction, AutoscalingConfig, AutoscalingPolicy
from trygon.spec.http_options import (
    ControllerOptions,
    DeploymentMode,
    HTTPOptions,
    ProxyLocation,
    gRPCOptions,
)
from trygon.spec.options import (
    BackpressureConfig,
    DeploymentActorConfig,
    GangPlacementStrategy,
    GangRuntimeFailurePolicy,
    GangSchedulingConfig,
    RequestQueueConfig,
    RequestRouterConfig,
)

__all__ = [
    "AggregationFunction",
    "AutoscalingConfig",
    "AutoscalingContext",
    "AutoscalingPolicy",
    "BackpressureConfig",
    "ControllerOptions",
    "DeploymentActorConfig",
    "DeploymentMode",
    "GangPlacementStrategy",
    "GangRuntimeFailurePolicy",
    "GangSchedulingConfig",
    "HTTPOptions",
    "ProxyLocation",
    "RequestQueueConfig",
    "RequestRouterConfig",
    "gRPCOptions",
]
