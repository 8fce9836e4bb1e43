"""Defaults and checks of the public option classes, beside those of Ray Serve 2.60."""

from __future__ import annotations

import pytest

from trygon.serve import config, schema
from trygon.spec.autoscaling import AutoscalingConfig, AutoscalingPolicy
from trygon.spec.http_options import (
    ControllerOptions,
    DeploymentMode,
    HTTPOptions,
    ProxyLocation,
    gRPCOptions,
)
from trygon.spec.logging_options import LoggingConfig, TracingConfig
from trygon.spec.options import (
    BackpressureConfig,
    DeploymentActorConfig,
    GangSchedulingConfig,
    RequestRouterConfig,
)
from trygon.spec.validation import OptionError

DEFAULTS = [
    (
        HTTPOptions(),
        {
            "host": "127.0.0.1",
            "port": 8000,
            "middlewares": [],
            "location": None,
            "num_cpus": 0,
            "root_url": "",
            "root_path": "",
            "request_timeout_s": None,
            "keep_alive_timeout_s": 90,
            "ssl_keyfile": None,
            "ssl_certfile": None,
            "ssl_keyfile_password": None,
            "ssl_ca_certs": None,
        },
    ),
    (
        gRPCOptions(),
        {"port": 9000, "grpc_servicer_functions": [], "request_timeout_s": None, "enable_reflection": True},
    ),
    (
        AutoscalingConfig(),
        {
            "min_replicas": 1,
            "initial_replicas": None,
            "max_replicas": 1,
            "target_ongoing_requests": 2,
            "metrics_interval_s": 10.0,
            "look_back_period_s": 30.0,
            "smoothing_factor": 1.0,
            "upscale_smoothing_factor": None,
            "downscale_smoothing_factor": None,
            "upscaling_factor": None,
            "downscaling_factor": None,
            "downscale_delay_s": 600.0,
            "downscale_to_zero_delay_s": None,
            "upscale_delay_s": 30.0,
            "aggregation_function": "mean",
            "policy": AutoscalingPolicy().model_dump(),
        },
    ),
    (BackpressureConfig(), {"status_code": 503, "retry_after_s": None}),
    (
        RequestRouterConfig(),
        {
            "request_router_class": RequestRouterConfig().request_router_class,
            "request_router_kwargs": {},
            "request_routing_stats_period_s": 10,
            "request_routing_stats_timeout_s": 30,
            "initial_backoff_s": 0.025,
            "backoff_multiplier": 2,
            "max_backoff_s": 0.5,
        },
    ),
    (
        GangSchedulingConfig(gang_size=1),
        {"gang_size": 1, "gang_placement_strategy": "PACK", "runtime_failure_policy": "RESTART_GANG"},
    ),
    (
        DeploymentActorConfig(name="a", actor_class=int),
        {"name": "a", "actor_class": int, "init_args": (), "init_kwargs": {}, "actor_options": {}},
    ),
    (ControllerOptions(), {"runtime_env": None}),
    (TracingConfig(), {"enabled": False, "exporter_import_path": "", "sampling_ratio": 0.01}),
    (
        LoggingConfig(),
        {
            "encoding": "TEXT",
            "log_level": "INFO",
            "logs_dir": None,
            "enable_access_log": True,
            "additional_log_standard_attrs": [],
        },
    ),
]


@pytest.mark.parametrize("made, expected", DEFAULTS, ids=lambda value: type(value).__name__)
def test_defaults_and_order_are_those_of_ray_serve(made: object, expected: dict) -> None:
    assert expected == made.model_dump()  # type: ignore[attr-defined]
    assert list(expected) == list(made.model_dump())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: HTTPOptions(port=70000), "HTTPOptions, port: wanted an integer of 0 to 65535, found 70000"),
        (
            lambda: HTTPOptions(middlewares=[1]),
            "middlewares: the option was removed; add middleware to the app",
        ),
        (lambda: HTTPOptions(num_cpus=1), "num_cpus: the option was removed"),
        (lambda: HTTPOptions(host=3), "wanted None or a string, found 3"),
        (lambda: HTTPOptions(location="Moon"), "'Disabled', 'HeadOnly' or 'EveryNode'"),
        (lambda: HTTPOptions(ssl_keyfile="k"), "ssl_keyfile without ssl_certfile"),
        (lambda: HTTPOptions(ssl_certfile="c"), "ssl_certfile without ssl_keyfile"),
        (lambda: gRPCOptions(grpc_servicer_functions="a.b"), "wanted a list"),
        (lambda: gRPCOptions(enable_reflection=1), "wanted True or False"),
        (lambda: ControllerOptions(runtime_env={"pip": []}), "only 'env_vars' is allowed, found 'pip'"),
        (lambda: AutoscalingConfig(min_replicas=2), "set max_replicas to 2 or more"),
        (lambda: AutoscalingConfig(max_replicas=0), "wanted an integer of 1 or more, found 0"),
        (lambda: AutoscalingConfig(initial_replicas=5), "between min_replicas (1) and max_replicas (1)"),
        (lambda: AutoscalingConfig(target_ongoing_requests=0), "wanted None or a number above 0"),
        (lambda: AutoscalingConfig(aggregation_function="p50"), "one of 'mean', 'max', 'min'"),
        (lambda: AutoscalingPolicy(policy_function=3), "a function, a class, or 'module:name'"),
        (lambda: BackpressureConfig(status_code=500), "wanted 503 or 429, found 500"),
        (lambda: BackpressureConfig(retry=1), "BackpressureConfig has no option 'retry'"),
        (lambda: RequestRouterConfig(request_router_class=""), "a router class or 'module:name'"),
        (lambda: RequestRouterConfig(request_router_kwargs={"a": object()}), "a dict of JSON values"),
        (lambda: GangSchedulingConfig(gang_size=0), "wanted an integer of 1 or more"),
        (lambda: LoggingConfig(encoding="json"), "wanted 'TEXT' or 'JSON', found 'json'"),
        (lambda: LoggingConfig(log_level="debug"), "write 'DEBUG'"),
        (lambda: LoggingConfig(log_level="loud"), "found 'loud'"),
        (
            lambda: LoggingConfig(level="INFO"),
            "LoggingConfig has no option 'level'; did you mean 'log_level'",
        ),
        (lambda: LoggingConfig(additional_log_standard_attrs=["nope"]), "'nope' is none of them"),
        (lambda: TracingConfig(sampling_ratio=2), "a number of 0 or more and at most 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused(make, text: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()

    assert text in str(caught.value)


def test_restarting_single_replicas_of_a_gang_does_not_exist() -> None:
    with pytest.raises(NotImplementedError, match="RESTART_REPLICA"):
        GangSchedulingConfig(gang_size=2, runtime_failure_policy="RESTART_REPLICA")


@pytest.mark.parametrize("value", ["Disabled", "NoServer", DeploymentMode.NoServer, ProxyLocation.Disabled])
def test_http_is_disabled_by_its_old_name_and_its_new_one(value: object) -> None:
    made = HTTPOptions(location=value)

    assert ProxyLocation.Disabled is made.location
    assert made.is_disabled


def test_no_host_disables_http() -> None:
    assert HTTPOptions(host=None).is_disabled
    assert not HTTPOptions().is_disabled


def test_levels_may_be_numbers() -> None:
    assert "DEBUG" == LoggingConfig(log_level=10).log_level


def test_auto_means_one_to_a_hundred_replicas_and_what_is_given_wins() -> None:
    assert (1, 100, 2) == _bounds(AutoscalingConfig.auto())
    assert (3, 100, 2) == _bounds(AutoscalingConfig.auto({"min_replicas": 3}))
    assert (1, 1, 2) == _bounds(AutoscalingConfig.auto(AutoscalingConfig(max_replicas=1)))


def _bounds(made: AutoscalingConfig) -> tuple[int, int, float | None]:
    return made.min_replicas, made.max_replicas, made.get_target_ongoing_requests()


def test_old_smoothing_factors_stand_in_for_new_ones() -> None:
    made = AutoscalingConfig(smoothing_factor=0.5, upscale_smoothing_factor=2)

    assert (2, 0.5) == (made.get_upscaling_factor(), made.get_downscaling_factor())
    assert 3 == made.replace(upscaling_factor=3).get_upscaling_factor()


@pytest.mark.parametrize(
    "path, is_default",
    [
        ("ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter", True),
        ("ray.serve._private.request_router.PowerOfTwoChoicesRequestRouter", True),
        ("mine:Router", False),
        (int, False),
    ],
)
def test_the_default_router_is_known_by_ray_serves_path_too(path: object, is_default: bool) -> None:
    assert is_default is RequestRouterConfig(request_router_class=path).is_default_router


def test_a_function_becomes_its_import_path_among_json_values() -> None:
    policy = AutoscalingPolicy(policy_function=_bounds)

    assert f"{__name__}:_bounds" == policy.to_builtins()["policy_function"]


def test_the_public_modules_give_these_classes() -> None:
    assert HTTPOptions is config.HTTPOptions
    assert LoggingConfig is schema.LoggingConfig
    assert schema.ServeStatus() == schema.ServeStatus({}, {}, None)


def test_a_grpc_status_error_keeps_what_it_was_given() -> None:
    from trygon.serve.exceptions import RayServeException, gRPCStatusError

    cause = ValueError("bad")
    error = gRPCStatusError(cause, "NOT_FOUND", "no such thing")

    assert (cause, "NOT_FOUND", "no such thing") == (
        error.original_exception,
        error.grpc_code,
        error.grpc_details,
    )
    assert "bad" == str(error)
    assert isinstance(error, RayServeException)
