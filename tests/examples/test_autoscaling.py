"""Replicas that follow the load, and policies that say how many there shall be."""

from __future__ import annotations

import httpx
import pytest

from examples import autoscaling, scaling_policies
from examples.scaling_policies import Budget, CalendarAndQueue, OfficeHours, at
from tests.examples.conftest import RunApp
from tests.waiting import wait_until
from trygon import serve


def test_the_first_visitor_starts_a_replica_that_leaves_when_nobody_is_there(
    run_app: RunApp, client: httpx.Client
) -> None:
    run_app(autoscaling.app)
    assert 0 == autoscaling.num_replicas()

    assert 35.6 == client.get("/", params={"celsius": "2"}).json()

    wait_until(lambda: autoscaling.num_replicas() == 0, "the last replica to leave")


@pytest.mark.parametrize("hour, replicas", [(7, 1), (8, 4), (17, 4), (18, 1)])
def test_office_hours(hour: int, replicas: int) -> None:
    assert replicas == OfficeHours(day=4)(at(hour))[0]


def test_a_budget_remembers_what_it_refused() -> None:
    assert (2, {"refused": 3}) == Budget(per_replica_hour=0.5, per_hour=1)(at(12, ongoing=9))
    assert (1, {"refused": 0}) == Budget(per_replica_hour=0.5, per_hour=1)(at(12, ongoing=2))


def test_the_larger_of_two_opinions_counts() -> None:
    both = CalendarAndQueue(day=4)

    assert (4, 6) == (both(at(12))[0], both(at(12, ongoing=12))[0])


@pytest.mark.timeout(60)
def test_a_policy_of_ones_own_decides(run_app: RunApp) -> None:
    """The calendar has no say at night, so an hour of the day is chosen that it always has."""
    always = {"policy_function": OfficeHours, "policy_kwargs": {"day": 3, "begins": 0, "ends": 24}}
    scaling = {"min_replicas": 1, "max_replicas": 8, "upscale_delay_s": 0, "metrics_interval_s": 0.2}
    run_app(scaling_policies.Converter.options(autoscaling_config={**scaling, "policy": always}).bind())

    wait_until(
        lambda: (
            serve.status().applications["default"].deployments["Converter"].replica_states.get("RUNNING") == 3
        ),
        "three replicas",
    )
