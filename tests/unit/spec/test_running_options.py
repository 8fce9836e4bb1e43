"""What a configuration may change in an instance that runs, and what it is told about the rest."""

from __future__ import annotations

from typing import Any

import pytest

from trygon.spec.routing import HttpTimeouts
from trygon.spec.running_options import fixed_problems, wanted_timeouts

RUNNING = {"host": "127.0.0.1", "port": 8000, "root_path": "/shop"}


def test_timeouts_are_those_that_are_given_and_else_the_defaults() -> None:
    assert wanted_timeouts({}) is None
    assert HttpTimeouts(request_timeout_s=0.0, keep_alive_timeout_s=90.0) == wanted_timeouts({"port": 1})
    assert HttpTimeouts(request_timeout_s=2.0, keep_alive_timeout_s=5.0) == wanted_timeouts(
        {"request_timeout_s": 2, "keep_alive_timeout_s": 5}
    )
    assert HttpTimeouts(request_timeout_s=0.0, keep_alive_timeout_s=3.0) == wanted_timeouts(
        {"keep_alive_timeout_s": 5}, keep_alive_s=3.0
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"host": "127.0.0.1", "port": 8000, "root_path": "/shop"},
        {"port": 0},
        {"request_timeout_s": 3, "keep_alive_timeout_s": 1},
        {"location": "EveryNode"},
    ],
)
def test_what_is_so_already_or_can_change_is_no_problem(given: dict[str, Any]) -> None:
    assert () == fixed_problems(given, None, RUNNING, serves_http=True)
    assert () == fixed_problems(given, "HeadOnly", RUNNING, serves_http=True)


@pytest.mark.parametrize(
    "given, text",
    [
        ({"port": 9000}, "http_options.port is 8000 in the running instance, and 9000 is wanted"),
        ({"root_path": ""}, "http_options.root_path is '/shop' in the running instance"),
        ({"ssl_keyfile": "/k", "ssl_certfile": "/c"}, "http_options.ssl_keyfile is None"),
    ],
)
def test_what_cannot_change_is_told_with_what_to_do(given: dict[str, Any], text: str) -> None:
    problems = fixed_problems(given, None, RUNNING, serves_http=True)

    assert text in problems[0]
    assert "shut it down and start it with this configuration" in problems[0]


def test_a_secret_is_not_shown() -> None:
    given = {"ssl_keyfile": "/k", "ssl_certfile": "/c", "ssl_keyfile_password": "hidden"}
    running = {**RUNNING, "ssl_keyfile": "/k", "ssl_certfile": "/c", "ssl_keyfile_password": "other"}

    (problem,) = fixed_problems(given, None, running, serves_http=True)

    assert "hidden" not in problem
    assert "other in" not in problem
    assert "ssl_keyfile_password" in problem


@pytest.mark.parametrize(
    "location, serves_http, is_problem",
    [("Disabled", True, True), ("EveryNode", False, True), ("Disabled", False, False)],
)
def test_whether_http_is_served_cannot_change(location: str, serves_http: bool, is_problem: bool) -> None:
    assert is_problem == bool(fixed_problems({}, location, RUNNING, serves_http=serves_http))
