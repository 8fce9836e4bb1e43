"""Configurations as values, under the names of `ray.serve.schema`: what a program writes, checked as a file is.

They have no rules of their own: each is written out plainly and read by `trygon.spec.config_file`, whose errors
name the key and what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from trygon.errors import ConfigError
from trygon.graph.overrides import CONFIG_CHECKS
from trygon.spec.autoscaling import AutoscalingConfig, AutoscalingPolicy
from trygon.spec.config_file import check_section
from trygon.spec.http_options import ControllerOptions, HTTPOptions, ProxyLocation, gRPCOptions
from trygon.spec.logging_options import LoggingConfig, TracingConfig
from trygon.spec.options import (
    BackpressureConfig,
    DeploymentActorConfig,
    GangSchedulingConfig,
    RequestRouterConfig,
)
from trygon.spec.validation import (
    REQUIRED,
    Check,
    OptionError,
    Options,
    any_value,
    enum_member,
    integer,
    list_of,
    mapping,
    option,
    optional,
    options_of,
)

__all__ = [
    "DeploymentSchema",
    "HTTPOptionsSchema",
    "RayActorOptionsSchema",
    "ScaleDeploymentRequest",
    "ServeApplicationSchema",
    "ServeDeploySchema",
    "gRPCOptionsSchema",
]


class _Section(Options):
    """A configuration, or a part of one."""

    _section: ClassVar[Literal["config", "application", "deployment"]]

    def _check(self) -> None:
        written = self.model_dump(mode="json", exclude_unset=True)
        try:
            check_section(written, self._section, source=type(self).__name__, checks=CONFIG_CHECKS)
        except ConfigError as error:
            raise OptionError(str(error)) from None


class RayActorOptionsSchema(Options):
    """What each replica needs, and the environment it gets."""

    runtime_env: dict[str, Any] = option(default={}, check=mapping)
    num_cpus: float | None = option(default=None, check=any_value)
    num_gpus: float | None = option(default=None, check=any_value)
    memory: float | None = option(default=None, check=any_value)
    accelerator_type: str | None = option(default=None, check=any_value)
    resources: dict[str, Any] = option(default={}, check=mapping)
    label_selector: dict[str, str] | None = option(default=None, check=any_value)
    fallback_strategy: list[dict[str, Any]] | None = option(default=None, check=any_value)

    def _check(self) -> None:
        CONFIG_CHECKS.deployment_option("ray_actor_options", self.given())


class DeploymentSchema(_Section):
    """Options of one deployment that win over those in its code; None stands for what the code says."""

    _section = "deployment"

    name: str = option(default=REQUIRED, check=any_value)
    num_replicas: int | str | None = option(default=None, check=any_value)
    max_ongoing_requests: int | None = option(default=None, check=any_value)
    max_queued_requests: int | None = option(default=None, check=any_value)
    backpressure_config: BackpressureConfig | None = option(
        default=None, check=optional(options_of(BackpressureConfig))
    )
    user_config: dict[str, Any] | None = option(default=None, check=any_value)
    autoscaling_config: AutoscalingConfig | None = option(
        default=None, check=optional(options_of(AutoscalingConfig))
    )
    graceful_shutdown_wait_loop_s: float | None = option(default=None, check=any_value)
    graceful_shutdown_timeout_s: float | None = option(default=None, check=any_value)
    health_check_period_s: float | None = option(default=None, check=any_value)
    health_check_timeout_s: float | None = option(default=None, check=any_value)
    ray_actor_options: RayActorOptionsSchema | None = option(
        default=None, check=optional(options_of(RayActorOptionsSchema))
    )
    placement_group_bundles: list[dict[str, float]] | None = option(default=None, check=any_value)
    placement_group_strategy: str | None = option(default=None, check=any_value)
    placement_group_bundle_label_selector: list[dict[str, str]] | None = option(default=None, check=any_value)
    max_replicas_per_node: int | None = option(default=None, check=any_value)
    logging_config: LoggingConfig | None = option(default=None, check=optional(options_of(LoggingConfig)))
    request_router_config: RequestRouterConfig | None = option(
        default=None, check=optional(options_of(RequestRouterConfig))
    )
    max_constructor_retry_count: int | None = option(default=None, check=any_value)
    gang_scheduling_config: GangSchedulingConfig | None = option(
        default=None, check=optional(options_of(GangSchedulingConfig))
    )
    deployment_actors: list[DeploymentActorConfig] | None = option(
        default=None, check=optional(list_of(options_of(DeploymentActorConfig)))
    )
    rolling_update_percentage: float | None = option(default=None, check=any_value)
    max_surge_percent: int | None = option(default=None, check=any_value)


class ServeApplicationSchema(_Section):
    """One application of a configuration."""

    _section = "application"

    name: str = option(default="default", check=any_value)
    route_prefix: str | None = option(default="/", check=any_value)
    import_path: str = option(default=REQUIRED, check=any_value)
    runtime_env: dict[str, Any] = option(default={}, check=mapping)
    deployments: list[DeploymentSchema] = option(default=[], check=list_of(options_of(DeploymentSchema)))
    args: dict[str, Any] = option(default={}, check=mapping)
    logging_config: LoggingConfig | None = option(default=None, check=optional(options_of(LoggingConfig)))
    autoscaling_policy: AutoscalingPolicy | None = option(
        default=None, check=optional(options_of(AutoscalingPolicy))
    )
    external_scaler_enabled: bool = option(default=False, check=any_value)

    @property
    def deployment_names(self) -> list[str]:
        """Names of the deployments that options are given for."""
        return [deployment.name for deployment in self.deployments]


class HTTPOptionsSchema(HTTPOptions):
    """`HTTPOptions` as they stand in a configuration: unknown names are refused."""


class gRPCOptionsSchema(gRPCOptions):
    """`gRPCOptions` as they stand in a configuration: unknown names are refused."""


def _strict(strict: type[Options], lenient: type[Options]) -> Check:
    """The stricter class, or the options of the one that a program gives to `serve.start`."""

    def convert(value: Any) -> Any:
        return strict.parse(value.given() if type(value) is lenient else value)

    return Check(f"{strict.__name__} or a dict of its options", convert)


class ServeDeploySchema(_Section):
    """A whole configuration; what a configuration file and a PUT of the REST API have in them."""

    _section = "config"

    applications: list[ServeApplicationSchema] = option(
        default=REQUIRED, check=list_of(options_of(ServeApplicationSchema))
    )
    proxy_location: ProxyLocation = option(default=ProxyLocation.EveryNode, check=enum_member(ProxyLocation))
    http_options: HTTPOptionsSchema = option(
        default=HTTPOptionsSchema(), check=_strict(HTTPOptionsSchema, HTTPOptions)
    )
    grpc_options: gRPCOptionsSchema = option(
        default=gRPCOptionsSchema(), check=_strict(gRPCOptionsSchema, gRPCOptions)
    )
    controller_options: ControllerOptions | None = option(
        default=None, check=optional(options_of(ControllerOptions))
    )
    logging_config: LoggingConfig | None = option(default=None, check=optional(options_of(LoggingConfig)))
    tracing_config: TracingConfig | None = option(default=None, check=optional(options_of(TracingConfig)))
    target_capacity: float | None = option(default=None, check=any_value)

    @staticmethod
    def get_empty_schema_dict() -> dict[str, Any]:
        """Return the smallest configuration."""
        return {"applications": []}


class ScaleDeploymentRequest(Options):
    """What an external scaler sends: how many replicas a deployment shall have."""

    target_num_replicas: int = option(default=REQUIRED, check=integer(0))
