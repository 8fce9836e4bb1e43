"""How a router is named, and what callers get of it."""

from __future__ import annotations

import pytest

from trygon.serve.request_router import ConsistentHashRouter, RequestRouter, RoundRobinRouter
from trygon.spec.options import RequestRouterConfig
from trygon.spec.routers import (
    CONSISTENT_HASH,
    CUSTOM,
    LEAST_LOADED,
    POWER_OF_TWO,
    ROUND_ROBIN,
    RouterRule,
)
from trygon.spec.validation import OptionError


class Mine(RoundRobinRouter):
    """A class of a user's."""


@pytest.mark.parametrize(
    "given, rule",
    [
        ("power_of_two", POWER_OF_TWO),
        ("locality", POWER_OF_TWO),
        ("round_robin", ROUND_ROBIN),
        ("least_loaded", LEAST_LOADED),
        ("consistent_hash", CONSISTENT_HASH),
        ("trygon.serve.request_router:RoundRobinRouter", ROUND_ROBIN),
        ("trygon.serve.request_router.LeastLoadedRouter", LEAST_LOADED),
        ("ray.serve.experimental.consistent_hash_router:ConsistentHashRouter", CONSISTENT_HASH),
        ("ray.serve.experimental.round_robin_router.RoundRobinRouter", ROUND_ROBIN),
        (ConsistentHashRouter, CONSISTENT_HASH),
        ("mine:RoundRobinRouter", CUSTOM),
        ("mine.routers.Router", CUSTOM),
        (Mine, CUSTOM),
        (RequestRouter, CUSTOM),
    ],
)
def test_a_router_is_known_by_its_names(given: object, rule: str) -> None:
    assert rule == RequestRouterConfig(request_router_class=given).rule().name


def test_the_default_is_a_rule_without_anything() -> None:
    assert RouterRule() == RequestRouterConfig().rule()


def test_consistent_hashing_takes_its_numbers() -> None:
    config = RequestRouterConfig(
        request_router_class="consistent_hash",
        request_router_kwargs={"num_virtual_nodes": 7, "num_fallback_replicas": 0},
    )

    rule = config.rule()

    assert (7, 0) == (rule.num_virtual_nodes, rule.num_fallback_replicas)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"request_router_class": "roundrobin"}, "'round_robin'"),
        (
            {"request_router_class": "ray.serve.experimental.capacity:CapacityQueueRouter"},
            "use 'least_loaded'",
        ),
        (
            {"request_router_class": "consistent_hash", "request_router_kwargs": {"num_virtual_nodes": 0}},
            "num_virtual_nodes",
        ),
        (
            {"request_router_class": "consistent_hash", "request_router_kwargs": {"nodes": 1}},
            "nodes",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(options: dict[str, object], text: str) -> None:
    with pytest.raises((OptionError, TypeError, ValueError), match=text):
        RequestRouterConfig(**options)


def test_a_class_of_the_users_gets_its_keyword_arguments() -> None:
    rule = RequestRouterConfig(
        request_router_class="mine:Router", request_router_kwargs={"a": [1]}, max_backoff_s=1
    ).rule()

    assert ("mine:Router", {"a": [1]}, 1.0) == (rule.router_class, rule.kwargs, rule.max_backoff_s)
