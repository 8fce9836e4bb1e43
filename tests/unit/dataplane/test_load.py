"""What a caller reports of its load: averages while there is some, once when it ends, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tests.waiting import wait_until_async
from trygon.dataplane.load import LoadReporter
from trygon.spec.load import DeploymentLoad
from trygon.spec.routing import DeploymentTargets, RoutingTable

PERIOD_S = 0.02


class Link:
    def __init__(self, replica_id: str, ongoing: int = 0) -> None:
        self.replica_id = replica_id
        self.ongoing = ongoing
        self.num_begun = ongoing


class Pool:
    def __init__(self, *links: Link, num_waiting: int = 0) -> None:
        self.links = list(links)
        self.num_waiting = num_waiting


def table(*names: str, period_s: float = PERIOD_S) -> RoutingTable:
    return RoutingTable(
        version=1,
        deployments=tuple(
            DeploymentTargets(
                app_name="app", name=name, revision=1, max_ongoing_requests=1, load_period_s=period_s
            )
            for name in names
        ),
    )


class Caller:
    """One reporter, its pools, and what it has sent."""

    def __init__(self, **pools: Pool) -> None:
        self.pools = pools
        self.sent: list[DeploymentLoad] = []
        self.reporter = LoadReporter(
            asyncio.get_running_loop(),
            lambda _, name: [self.pools[name]] if name in self.pools else [],  # type: ignore[list-item]
            self.sent.extend,
        )

    async def wait_sent(self, count: int) -> None:
        await wait_until_async(lambda: len(self.sent) >= count, f"{count} reports")


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_load_is_reported_until_it_ends_and_then_once_more() -> None:
    async def test() -> None:
        link = Link("r1", ongoing=2)
        caller = Caller(Main=Pool(link, num_waiting=3))
        caller.reporter.apply(table("Main"))

        await caller.wait_sent(2)
        link.ongoing = caller.pools["Main"].num_waiting = 0
        await wait_until_async(lambda: caller.sent[-1].is_idle, "a report of no load")
        count = len(caller.sent)
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=4 * PERIOD_S)

        assert (3, 2, {"r1": 2}) == (caller.sent[0].queued, caller.sent[0].running, caller.sent[0].replicas)
        assert count == len(caller.sent)

    run(test())


def test_what_does_not_scale_is_not_looked_at() -> None:
    async def test() -> None:
        caller = Caller(Main=Pool(Link("r1", ongoing=2)))
        caller.reporter.apply(table("Main", period_s=0.0))
        caller.reporter.wake()
        caller.reporter.hurry()
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=3 * PERIOD_S)

        assert [] == caller.sent

    run(test())


def test_a_request_that_waits_where_no_replica_is_is_told_at_once() -> None:
    async def test() -> None:
        caller = Caller(Main=Pool())
        caller.reporter.apply(table("Main", period_s=60.0))
        caller.pools["Main"].num_waiting = 1
        caller.reporter.hurry()
        caller.reporter.hurry()
        await caller.wait_sent(1)

        assert [1] == [load.queued for load in caller.sent]
        caller.reporter.close()

    run(test())


def test_arrivals_and_completions_are_counted_without_a_counter_of_requests() -> None:
    async def test() -> None:
        link = Link("r1")
        caller = Caller(Main=Pool(link))
        caller.reporter.apply(table("Main", period_s=60.0))
        link.num_begun, link.ongoing, caller.pools["Main"].num_waiting = 10, 4, 2
        caller.reporter.hurry()
        await caller.wait_sent(1)
        # Another connection to the same replica counts from nothing.
        link.num_begun, link.ongoing, caller.pools["Main"].num_waiting = 3, 0, 0
        caller.reporter.hurry()
        await caller.wait_sent(2)

        assert (12, 6) == (caller.sent[0].arrivals, caller.sent[0].completions)
        assert (1, 7) == (caller.sent[1].arrivals, caller.sent[1].completions)
        caller.reporter.close()

    run(test())


def test_a_later_table_ends_reports() -> None:
    async def test() -> None:
        caller = Caller(Main=Pool(Link("r1", ongoing=2)))
        caller.reporter.apply(table("Main"))
        await caller.wait_sent(1)
        caller.reporter.apply(table("Other"))
        count = len(caller.sent)
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=3 * PERIOD_S)

        assert count == len(caller.sent)

    run(test())
