"""A million items through one batched method, with random cancellations and failures: who got which answer?

Run ``python -m bench.batch_items --items 1000000 --seed 1``; the status is 0 when every answer went to its own
caller, nobody else failed, and nothing is left in the queue.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import random
import sys
import time
from typing import Any

from trygon import serve
from trygon.serve.exceptions import RequestCancelledError

__all__ = ["main"]

#: Numbers whose items fail, and those whose callers may leave.
_BAD, _LEAVING = 997, 13
#: Callers at a time.
_ROOM = 500


@serve.deployment(
    max_ongoing_requests=1000, logging_config={"enable_access_log": False, "log_level": "CRITICAL"}
)
class Squares:
    """Takes a random time for a batch, and fails for every 997th number."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    @serve.batch(
        max_batch_size=64, batch_wait_timeout_s=0.002, max_concurrent_batches=3, bisect_on_error=True
    )
    async def work(self, numbers: list[int]) -> list[int]:
        """Return the square of each number."""
        await asyncio.sleep(self.chance.random() * 0.001)
        if any(number % _BAD == 0 for number in numbers):
            raise ValueError(f"bad among {numbers}")
        return [number * number for number in numbers]

    async def __call__(self, number: int) -> int:
        return await self.work(number)

    def left(self) -> tuple[int, int, int, int]:
        """Return how many items wait, batches run, batches and items there were."""
        found: Any = self.work.statistics()  # type: ignore[attr-defined]
        return found.num_waiting, found.num_running, found.num_batches, found.num_items


class Run:
    """One run: callers draw numbers until there are none left."""

    def __init__(self, handle: Any, items: int, seed: int) -> None:
        self._handle = handle
        self._numbers = iter(range(items))
        self._chance = random.Random(seed)
        self.outcomes: collections.Counter[str] = collections.Counter()

    async def run(self) -> None:
        """Make every call."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_ROOM):
                group.create_task(self._caller())

    async def _caller(self) -> None:
        for number in self._numbers:
            self.outcomes[await self._ask(number)] += 1

    async def _ask(self, number: int) -> str:
        response = self._handle.remote(number)
        if number % _LEAVING == 0:
            await asyncio.sleep(self._chance.random() * 0.01)
            response.cancel()
        try:
            answer = await response
        except RequestCancelledError:
            return "cancelled" if number % _LEAVING == 0 else "WRONG: cancelled by nobody"
        except ValueError as error:
            text = str(getattr(error, "cause", None) or error)
            is_own = text == f"bad among [{number}]" and number % _BAD == 0
            return "failed" if is_own else "WRONG: the error of another"
        return "answered" if answer == number * number else "WRONG: the answer of another"


def main() -> int:
    """Run, print what came out, and return the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    handle = serve.run(Squares.bind(chosen.seed), route_prefix=None)
    run = Run(handle, chosen.items, chosen.seed)
    began = time.monotonic()
    asyncio.run(run.run())
    duration_s = time.monotonic() - began
    waiting, running, batches, items = handle.left.remote().result(timeout_s=10)
    serve.shutdown()
    print(
        f"seed {chosen.seed}: {chosen.items:,} items in {duration_s:.0f} s, {batches:,} batches of {items:,} items"
    )
    for outcome, count in sorted(run.outcomes.items()):
        print(f"  {outcome}: {count:,}")
    print(f"  left in the queue: {waiting} waiting, {running} running")
    is_right = not any(outcome.startswith("WRONG") for outcome in run.outcomes)
    return 0 if is_right and run.outcomes.total() == chosen.items and not waiting and not running else 1


if __name__ == "__main__":
    sys.exit(main())
