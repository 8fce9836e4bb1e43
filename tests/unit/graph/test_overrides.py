"""Options of a configuration file over those of the code, and the way back from a specification to a file."""

from __future__ import annotations

from typing import Any

import pytest

from trygon.graph.options import checked_options, specification
from trygon.graph.overrides import UnknownDeploymentError, apply_overrides
from trygon.graph.plain_options import plain_options
from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec
from trygon.spec.config_file import DeploymentConfig
from trygon.spec.validation import OptionError


def options_of(**given: Any) -> DeploymentOptions:
    return specification(checked_options(given, {}, owner="deployment 'D'", is_function=False))


def over(code: dict[str, Any], file: dict[str, Any]) -> tuple[DeploymentOptions, list[str]]:
    spec = ApplicationSpec(
        ingress="D",
        deployments=(
            DeploymentSpec(name="D", app_name="a", definition=b"", options=options_of(**code)),
            DeploymentSpec(name="E", app_name="a", definition=b""),
        ),
    )
    warnings: list[str] = []
    new = apply_overrides(
        spec, (DeploymentConfig(name="D", options=file),), warn=lambda _, text: warnings.append(text)
    )
    assert spec.deployment("E") == new.deployment("E")
    return new.deployment("D").options, warnings


def test_the_file_wins_over_the_code_and_the_code_over_the_defaults() -> None:
    code = {"num_replicas": 2, "max_ongoing_requests": 9, "user_config": {"x": 1}}

    options, _ = over(code, {"num_replicas": 4, "user_config": None})

    assert options_of(num_replicas=4, max_ongoing_requests=9) == options


def test_a_count_in_the_file_ends_the_scaling_of_the_code_and_the_other_way_round() -> None:
    scaling = {"min_replicas": 2, "max_replicas": 5}

    counted, _ = over({"autoscaling_config": scaling}, {"num_replicas": 4})
    scaled, _ = over({"num_replicas": 4}, {"autoscaling_config": scaling})

    assert (4, None) == (counted.num_replicas, counted.autoscaling)
    assert options_of(autoscaling_config=scaling) == scaled


def test_a_router_of_the_file_replaces_that_of_the_code() -> None:
    code = {"request_router_config": {"max_backoff_s": 1.0}}
    file = {"request_router_config": {"request_router_class": "shop:Router"}}

    options, warnings = over(code, file)

    assert options_of(**file) == options
    assert [] == warnings


def test_resources_and_environment_of_the_file_replace_those_of_the_code() -> None:
    code = {"ray_actor_options": {"num_cpus": 3, "runtime_env": {"env_vars": {"A": "1"}}}}

    options, _ = over(code, {"ray_actor_options": {"resources": {"lamp": 1}}})

    assert (1.0, {"lamp": 1.0}, {}) == (
        options.resources.num_cpus,
        options.resources.resources,
        options.env_vars,
    )


def test_options_that_only_tune_are_kept_and_warned_about() -> None:
    options, warnings = over({"max_replicas_per_node": 3}, {"max_replicas_per_node": 4})

    assert {"max_replicas_per_node": 4} == options.inert
    assert [
        "the option max_replicas_per_node changes nothing yet: all replicas run on this machine"
    ] == warnings


def test_an_unknown_deployment_names_those_that_are_there() -> None:
    spec = ApplicationSpec(
        ingress="Model", deployments=(DeploymentSpec(name="Model", app_name="a", definition=b""),)
    )

    for name, words in (("Modell", "did you mean 'Model'"), ("x", "it has 'Model'")):
        with pytest.raises(UnknownDeploymentError, match=words):
            apply_overrides(spec, (DeploymentConfig(name=name),), warn=lambda *_: None)


def test_a_number_in_a_file_wins_over_a_learned_limit_in_the_code() -> None:
    options, _ = over({"max_ongoing_requests": "auto"}, {"max_ongoing_requests": 9})

    assert options_of(max_ongoing_requests=9) == options


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(OptionError, match="remove one of them"):
        over({}, {"num_replicas": 2, "autoscaling_config": {"max_replicas": 2}})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"num_replicas": 3, "user_config": {"x": [1]}, "max_surge_percent": 0},
        {"autoscaling_config": {"min_replicas": 2, "max_replicas": 4}},
        {"num_replicas": "auto"},
        {"backpressure_config": {"status_code": 429, "retry_after_s": 2.0}, "max_queued_requests": 3},
        {"logging_config": {"log_level": "DEBUG", "enable_access_log": False}},
        {
            "max_ongoing_requests": "auto",
            "request_queue_config": {"max_wait_s": -1, "fairness_key": "client"},
        },
        {"request_queue_config": {"priority": "header:x-priority", "priorities": {"gold": 3}}},
        {
            "ray_actor_options": {
                "num_cpus": 0.5,
                "num_gpus": 1,
                "memory": 1024,
                "accelerator_type": "A100",
                "resources": {"lamp": 1},
                "label_selector": {"zone": "a"},
                "runtime_env": {"env_vars": {"A": "1"}, "working_dir": "/x"},
            }
        },
        {"request_router_config": {"request_router_class": "round_robin", "max_backoff_s": 2.0}},
        {
            "request_router_config": {
                "request_router_class": "consistent_hash",
                "request_router_kwargs": {"num_virtual_nodes": 7},
            }
        },
        {
            "request_router_config": {
                "request_router_class": "shop:Router",
                "request_router_kwargs": {"by": "shop"},
                "request_routing_stats_period_s": 1.0,
            }
        },
        {"max_replicas_per_node": 3, "request_router_config": {"max_backoff_s": 1.0}},
        {"placement_group_bundles": [{"CPU": 1}], "placement_group_strategy": "SPREAD"},
    ],
)
def test_what_is_written_to_a_file_reads_back_as_it_was(given: dict[str, Any]) -> None:
    options = options_of(**given)

    assert options == options_of(**plain_options(options))
