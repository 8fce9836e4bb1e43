"""The options of a deployment: their checks, and what they become."""

from __future__ import annotations

import pytest

from trygon.graph.deployment import Deployment, deployment
from trygon.graph.options import MAX_AUTO_ONGOING, announce_inert, option_names
from trygon.spec.application import DeploymentOptions, ResourceRequest
from trygon.spec.autoscaling import AutoscalingConfig
from trygon.spec.logging_options import LoggingConfig
from trygon.spec.options import GangSchedulingConfig, RequestQueueConfig, RequestRouterConfig
from trygon.spec.queueing import NO_WAIT_BOUND, QueuePolicy
from trygon.spec.validation import OptionError


def made(**options: object) -> Deployment:
    return deployment(**options)(type("Model", (), {}))  # type: ignore[no-any-return]


def test_the_defaults_are_those_of_ray_serve_but_for_starting_first() -> None:
    expected = {
        "num_replicas": 1,
        "max_ongoing_requests": 5,
        "max_queued_requests": -1,
        "backpressure_status_code": 503,
        "backpressure_retry_after_s": None,
        "user_config": None,
        "health_check_period_s": 10,
        "health_check_timeout_s": 30,
        "graceful_shutdown_timeout_s": 20,
        "graceful_shutdown_wait_loop_s": 2,
        "max_constructor_retry_count": 20,
        "resources": ResourceRequest(num_cpus=1),
        "autoscaling": None,
        "logging": None,
        "rolling_update_percentage": 0.2,
        "max_surge_percent": None,
        "inert": {},
    }
    spec = made().specification

    assert expected == {name: getattr(spec, name) for name in expected}


def test_every_option_has_its_place_in_the_specification() -> None:
    spec = made(
        num_replicas=2,
        max_ongoing_requests=7,
        max_queued_requests=8,
        user_config={"a": [1]},
        backpressure_config={"status_code": 429, "retry_after_s": 1.5},
        health_check_period_s=1,
        health_check_timeout_s=2,
        graceful_shutdown_timeout_s=0,
        graceful_shutdown_wait_loop_s=0,
        max_constructor_retry_count=3,
        logging_config={"log_level": "DEBUG"},
        max_surge_percent=0,
        rolling_update_percentage=1,
        ray_actor_options={"num_cpus": 0.5, "runtime_env": {"env_vars": {"A": "1"}, "working_dir": "/srv"}},
    ).specification

    assert (
        DeploymentOptions(
            num_replicas=2,
            max_ongoing_requests=7,
            max_queued_requests=8,
            user_config={"a": [1]},
            backpressure_status_code=429,
            backpressure_retry_after_s=1.5,
            health_check_period_s=1,
            health_check_timeout_s=2,
            graceful_shutdown_timeout_s=0,
            graceful_shutdown_wait_loop_s=0,
            max_constructor_retry_count=3,
            logging=LoggingConfig(log_level="DEBUG").to_builtins(),
            max_surge_percent=0,
            rolling_update_percentage=1,
            resources=ResourceRequest(num_cpus=0.5),
            env_vars={"A": "1"},
            working_dir="/srv",
        )
        == spec
    )


@pytest.mark.parametrize(
    "options",
    [
        {"num_replicas": 0},
        {"num_replicas": -1},
        {"num_replicas": 2.5},
        {"num_replicas": "many"},
        {"num_replicas": True},
        {"num_replicas": 2, "autoscaling_config": {}},
        {"max_ongoing_requests": None},
        {"max_ongoing_requests": 0},
        {"max_queued_requests": 0},
        {"max_queued_requests": -2},
        {"max_queued_requests": None},
        {"user_config": object()},
        {"health_check_period_s": 0},
        {"health_check_period_s": None},
        {"health_check_timeout_s": 0},
        {"graceful_shutdown_timeout_s": -1},
        {"graceful_shutdown_timeout_s": None},
        {"graceful_shutdown_wait_loop_s": -1},
        {"max_constructor_retry_count": 0},
        {"max_constructor_retry_count": None},
        {"rolling_update_percentage": 0},
        {"rolling_update_percentage": 1.1},
        {"max_surge_percent": 101},
        {"max_surge_percent": None},
        {"max_replicas_per_node": 0},
        {"max_replicas_per_node": 101},
        {"max_replicas_per_node": 1, "placement_group_bundles": [{"CPU": 1}]},
        {"max_replicas_per_node": 1, "gang_scheduling_config": {"gang_size": 1}},
        {"backpressure_config": {"status_code": 500}},
        {"backpressure_config": {"code": 503}},
        {"max_ongoing_requests": "many"},
        {"request_queue_config": {"max_wait_s": 0}},
        {"request_queue_config": {"max_wait_s": -2}},
        {"request_queue_config": {"max_wait": 1}},
        {"request_queue_config": {"fairness_key": "x-tenant"}},
        {"request_queue_config": {"fairness_key": "header:"}},
        {"request_queue_config": {"fairness_key": "header:a b"}},
        {"request_queue_config": {"fairness_key": 7}},
        {"request_queue_config": {"priority": "client"}},
        {"request_queue_config": {"priorities": {"high": 10_000}}},
        {"request_queue_config": {"priorities": {"": 1}}},
        {"request_queue_config": {"priorities": {str(n): n for n in range(33)}}},
        {"autoscaling_config": 3},
        {"autoscaling_config": {"min_replicas": 3}},
        {"logging_config": {"levels": 1}},
        {"gang_scheduling_config": {"gang_size": 2}, "num_replicas": 3},
        {"placement_group_strategy": "PACK"},
        {"placement_group_bundle_label_selector": [{"a": "b"}]},
        {"placement_group_bundles": []},
        {"placement_group_bundles": [{"CPU": 0.5}]},
        {"placement_group_bundles": [{"CPU": 1}], "placement_group_strategy": "HEAP"},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused_when_decorating(options: dict) -> None:
    with pytest.raises(ValueError) as caught:
        made(**options)

    assert isinstance(caught.value, OptionError)
    assert any(name in str(caught.value) for name in options)


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, QueuePolicy()),
        ({"max_wait_s": 2}, QueuePolicy(max_wait_s=2.0)),
        ({"max_wait_s": -1}, QueuePolicy(max_wait_s=NO_WAIT_BOUND)),
        ({"fairness_key": "header:X-Tenant"}, QueuePolicy(fairness_key="header:x-tenant")),
        ({"fairness_key": "client"}, QueuePolicy(fairness_key="client")),
        ({"priorities": {"a": 1}}, QueuePolicy()),
        (
            {"priority": "header:X-P"},
            QueuePolicy(priority="header:x-p", priorities={"low": -1, "normal": 0, "high": 1}),
        ),
        (
            {"priority": "header:p", "priorities": {"Gold": "3"}},
            QueuePolicy(priority="header:p", priorities={"gold": 3}),
        ),
    ],
    ids=str,
)
def test_who_waits_how_long_and_in_which_order_is_an_option(given: dict, expected: QueuePolicy) -> None:
    assert expected == made(request_queue_config=given).specification.queue
    assert expected == made(request_queue_config=RequestQueueConfig(**given)).specification.queue


def test_a_replica_may_learn_how_many_requests_it_works_on() -> None:
    spec = made(max_ongoing_requests="auto").specification

    assert (MAX_AUTO_ONGOING, True) == (spec.max_ongoing_requests, spec.tunes_ongoing_requests)
    assert not made(max_ongoing_requests=MAX_AUTO_ONGOING).specification.tunes_ongoing_requests


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"num_replicas": None}, {"num_replicas": 1}),
        ({"num_replicas": "3"}, {"num_replicas": 3}),
        ({"num_replicas": 2.0}, {"num_replicas": 2}),
        ({"max_ongoing_requests": "7"}, {"max_ongoing_requests": 7}),
        ({"user_config": None}, {"user_config": None}),
        ({"ray_actor_options": None}, {"resources": ResourceRequest(num_cpus=1)}),
        ({"backpressure_config": None}, {"backpressure_status_code": 503}),
        ({"request_queue_config": None}, {"queue": QueuePolicy()}),
        ({"logging_config": None}, {"logging": None}),
        ({"deployment_actors": []}, {"inert": {}}),
        ({"max_replicas_per_node": None}, {"inert": {}}),
    ],
    ids=str,
)
def test_what_ray_serve_lets_pass_passes(options: dict, expected: dict) -> None:
    spec = made(**options).specification

    assert expected == {name: getattr(spec, name) for name in expected}


def test_an_unknown_option_is_named_with_the_nearest_one() -> None:
    with pytest.raises(TypeError, match="there is no option 'num_replica'; did you mean 'num_replicas'"):
        made(num_replica=2)
    with pytest.raises(TypeError, match="there is no option 'nothing_like_it'; the options are name, "):
        made().options(nothing_like_it=2)


def test_the_share_of_a_rolling_update_is_the_decorators_only() -> None:
    with pytest.raises(TypeError, match=r"give it to @serve.deployment"):
        made().options(rolling_update_percentage=0.5)


@pytest.mark.parametrize(
    "options, remedy",
    [
        ({"deployment_actors": [{"name": "a", "actor_class": int}]}, "make the shared part a deployment"),
        ({"gang_scheduling_config": {"gang_size": 2}, "num_replicas": 4}, "remove gang_scheduling_config"),
        (
            {"ray_actor_options": {"runtime_env": {"conda": "torch"}}},
            "start Trygon in that conda environment",
        ),
        ({"ray_actor_options": {"runtime_env": {"working_dir": "s3://b/k.zip"}}}, "give the folder's path"),
    ],
)
def test_what_would_change_results_and_cannot_be_done_yet_is_refused(options: dict, remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        made(**options)


@pytest.mark.parametrize(
    "options, key",
    [
        ({"request_router_config": RequestRouterConfig(max_backoff_s=1)}, "request_router_config"),
        ({"max_replicas_per_node": 2}, "max_replicas_per_node"),
        ({"placement_group_bundles": [{"CPU": 1}]}, "placement_group_bundles"),
        ({"gang_scheduling_config": GangSchedulingConfig(gang_size=1)}, "gang_scheduling_config"),
        ({"ray_actor_options": {"label_selector": {"zone": "a"}}}, "label_selector"),
        ({"ray_actor_options": {"fallback_strategy": [{"label_selector": {}}]}}, "fallback_strategy"),
        ({"rolling_update_percentage": 0.5}, "rolling_update_percentage"),
    ],
    ids=str,
)
def test_what_only_tunes_is_kept_and_announced(options: dict, key: str) -> None:
    said: dict[str, str] = {}

    announce_inert(made(**options).specification, said.__setitem__)

    assert [f"option.{key}"] == list(said)
    assert "changes nothing yet" in said[f"option.{key}"]


def test_ordinary_options_announce_nothing() -> None:
    said: dict[str, str] = {}

    announce_inert(made(num_replicas=2, user_config={"a": 1}).specification, said.__setitem__)

    assert {} == said


@pytest.mark.parametrize(
    "scaling, replicas",
    [
        ({"min_replicas": 2, "max_replicas": 5}, 2),
        ({"min_replicas": 2, "max_replicas": 5, "initial_replicas": 3}, 3),
        ({"min_replicas": 0, "max_replicas": 5}, 0),
        (AutoscalingConfig(min_replicas=4, max_replicas=5), 4),
    ],
    ids=str,
)
def test_with_autoscaling_the_starting_number_is_the_initial_or_the_smallest_one(
    scaling: object, replicas: int
) -> None:
    assert replicas == made(autoscaling_config=scaling).specification.num_replicas


def test_auto_takes_overrides_before_it_checks_them() -> None:
    spec = made(num_replicas="auto", autoscaling_config={"min_replicas": 2}).specification

    assert (2, 2, 100) == (
        spec.num_replicas,
        spec.autoscaling["min_replicas"],
        spec.autoscaling["max_replicas"],
    )


def test_unknown_keys_of_an_autoscaling_dict_are_ignored_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="AutoscalingConfig has no option 'max_replica'"):
        assert made(autoscaling_config={"max_replica": 3}).specification.num_replicas == 1


@pytest.mark.parametrize(
    "options, text",
    [
        ({"cpus": 1}, "there is no option 'cpus'; did you mean 'num_cpus'"),
        ({"num_cpus": -1}, "num_cpus: wanted None or a number of 0 or more, found -1"),
        ({"num_gpus": 1.5}, "a part of one GPU or whole GPUs"),
        ({"memory": "much"}, "memory: wanted None or a number"),
        ({"resources": {"CPU": 1}}, "write num_cpus=1 beside it"),
        ({"resources": {"tpu": -1}}, "'tpu': wanted a number of 0 or more"),
        ({"resources": {3: 1}}, "the name of a resource is a string"),
        ({"accelerator_type": 3}, "wanted None or a string"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, "found the pair 'A': 1; write str(...)"),
        ({"runtime_env": "x"}, "runtime_env: wanted"),
    ],
    ids=str,
)
def test_resources_that_cannot_be_are_refused(options: dict, text: str) -> None:
    with pytest.raises(OptionError) as caught:
        made(ray_actor_options=options)

    assert text in str(caught.value)
    assert "ray_actor_options" in str(caught.value)


def test_resources_are_read_in_the_words_of_the_specification() -> None:
    options = {
        "num_cpus": 2,
        "num_gpus": 0.5,
        "memory": 1024,
        "accelerator_type": "A100",
        "resources": {"camera": 1},
        "runtime_env": {"config": {"eager_install": True}, "pip": []},
    }

    spec = made(ray_actor_options=options).specification

    assert (
        ResourceRequest(
            num_cpus=2, num_gpus=0.5, memory_bytes=1024, accelerator_type="A100", resources={"camera": 1}
        )
        == spec.resources
    )
    assert ({}, None) == (spec.env_vars, spec.working_dir)


def test_the_caller_s_own_dict_is_not_touched() -> None:
    options = {"num_gpus": 1}

    made(ray_actor_options=options)

    assert {"num_gpus": 1} == options


def test_the_names_of_the_options_are_those_of_ray_serve_and_one_of_our_own() -> None:
    assert {"request_queue_config"} | {
        "name", "version", "num_replicas", "ray_actor_options", "placement_group_bundles",
        "placement_group_strategy", "placement_group_bundle_label_selector", "max_replicas_per_node",
        "user_config", "max_ongoing_requests", "max_queued_requests", "backpressure_config",
        "autoscaling_config", "graceful_shutdown_wait_loop_s", "graceful_shutdown_timeout_s",
        "health_check_period_s", "health_check_timeout_s", "logging_config", "request_router_config",
        "max_constructor_retry_count", "gang_scheduling_config", "deployment_actors",
        "rolling_update_percentage", "max_surge_percent",
    } == set(option_names())  # fmt: skip
