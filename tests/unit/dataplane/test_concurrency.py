"""The limit of ``max_ongoing_requests="auto"``, against models of servers in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from trygon.dataplane.concurrency import GradientLimit


class Server:
    """Works on as many requests as the limit says, always; a request takes what `latency` says of the number."""

    def __init__(self, latency: Callable[[int, random.Random], float], *, maximum: int = 256) -> None:
        self.latency = latency
        self.limit = GradientLimit(maximum=maximum)
        self.rng = random.Random(7)
        self.now = 0.0
        self.ends: list[tuple[float, float]] = []

    def run(self, num_requests: int, *, demand: int = 10_000) -> list[int]:
        """Serve; return the limit after each request."""
        limits = []
        for _ in range(num_requests):
            while len(self.ends) < min(self.limit.limit, demand):
                took_s = self.latency(len(self.ends) + 1, self.rng)
                heapq.heappush(self.ends, (self.now + took_s, self.now))
            self.now, began = heapq.heappop(self.ends)
            limits.append(self.limit.end(self.now - began, len(self.ends) + 1, self.now))
        return limits


def waits(_: int, rng: random.Random) -> float:
    return 0.02 * rng.uniform(0.7, 1.3)


def backend(slots: int) -> Callable[[int, random.Random], float]:
    """So many requests go on beside one another, more share what there is."""

    def latency(num: int, rng: random.Random) -> float:
        return 0.02 * max(1.0, num / slots) * rng.uniform(0.7, 1.3)

    return latency


def mean(values: list[int]) -> float:
    return sum(values) / len(values)


def test_a_handler_that_only_waits_gets_as_many_as_there_may_be() -> None:
    limits = Server(waits).run(200_000)

    assert 256 == max(limits)
    assert mean(limits[-50_000:]) > 230


@pytest.mark.parametrize("slots", [1, 8, 32])
def test_a_handler_with_a_bottleneck_gets_little_more_than_that_takes(slots: int) -> None:
    limits = Server(backend(slots)).run(150_000)

    settled = limits[-50_000:]
    assert slots <= mean(settled) <= 3 * slots + 6


def test_the_limit_does_not_creep_while_the_load_lasts() -> None:
    limits = Server(backend(8)).run(600_000)

    assert mean(limits[-100_000:]) < 1.3 * mean(limits[100_000:200_000]) + 2


def test_times_that_vary_widely_do_not_close_the_limit() -> None:
    limits = Server(lambda _, rng: rng.expovariate(50)).run(300_000)

    assert mean(limits[-100_000:]) > 64


def test_a_service_that_became_slower_for_good_is_not_throttled_for_ever() -> None:
    server = Server(waits)
    server.run(150_000)
    server.latency = lambda _, rng: 0.1 * rng.uniform(0.7, 1.3)

    limits = server.run(300_000)

    assert mean(limits[-50_000:]) > 200


def test_a_service_that_became_faster_is_followed() -> None:
    server = Server(backend(4))
    server.run(50_000)
    server.latency = backend(32)

    assert mean(server.run(200_000)[-50_000:]) > 32


def test_a_limit_that_nobody_reaches_does_not_grow() -> None:
    assert 4 == max(Server(waits).run(20_000, demand=1))


def test_it_stays_within_its_bounds() -> None:
    limits = Server(waits, maximum=3).run(20_000)

    assert {3} == set(limits[:400])
    assert 1 <= min(limits) <= max(limits) <= 3
    assert 1 == GradientLimit(maximum=1).limit


def test_requests_that_take_no_time_are_no_fault() -> None:
    limit = GradientLimit(maximum=10)

    for number in range(10_000):
        limit.end(0.0, limit.limit, number * 0.01)

    assert 1 <= limit.limit <= 10
