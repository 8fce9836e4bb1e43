"""A race of leases over a cache with few places: no model may be used after it was unloaded.

python -m bench.model_leases --leases 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence

from trygon.serve.multiplexing import ModelCache

_TASKS = 100
_MODELS = 40
_PLACES = 8
_STEP = 100_000


class _Model:
    def __init__(self) -> None:
        self.is_unloaded = False

    async def __del__(self) -> None:
        await asyncio.sleep(0)
        self.is_unloaded = True


class _Race:
    """Uses models until so many leases are done; some callers leave while they wait or work."""

    def __init__(self, leases: int, seed: int) -> None:
        self._leases = leases
        self._chance = random.Random(seed)
        self.num_used = 0
        self.num_left = 0
        self.broken: list[str] = []
        self.cache = ModelCache(self._load, max_bytes=_PLACES, sizeof=lambda _: 1, failure_ttl_s=0.001)

    async def _load(self, name: str) -> _Model:
        del name
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        if not self._chance.randrange(50):
            raise LookupError("no such model")
        return _Model()

    async def run(self) -> None:
        """Race, then close the cache."""
        await asyncio.gather(*(self._work() for _ in range(_TASKS)))
        await self.cache.close()

    async def _work(self) -> None:
        chance = self._chance
        while self.num_used < self._leases:
            # Few are wanted often, many seldom.
            name = str(int(_MODELS * chance.random() ** 3))
            try:
                if chance.randrange(10):
                    await self._use(name)
                else:
                    async with asyncio.timeout(0):
                        await self._use(name)
            except (TimeoutError, LookupError):
                self.num_left += 1

    async def _use(self, name: str) -> None:
        async with self.cache.lease(name) as model:
            for _ in range(self._chance.randrange(3)):
                await asyncio.sleep(0)
                if model.is_unloaded:
                    self.broken.append(f"model {name} was used after it was unloaded")
            self.num_used += 1
            if not self.num_used % _STEP:
                print(f"  {self.num_used:,} leases", file=sys.stderr, flush=True)
            if not self.num_used % 64:
                numbers = self.cache.statistics()
                if numbers.held_bytes > _PLACES + numbers.leased_bytes:
                    self.broken.append(f"over the budget: {numbers}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the race; 1 when a model was used after it was unloaded, or the budget was passed."""
    parser = argparse.ArgumentParser(prog="python -m bench.model_leases", description=__doc__)
    parser.add_argument("--leases", type=int, default=1_000_000, help="leases, all together")
    parser.add_argument("--seed", type=int, default=1, help="of the chances; the same seed is the same race")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()

    async def go() -> _Race:
        race = _Race(chosen.leases, chosen.seed)
        await race.run()
        return race

    race = asyncio.run(go())
    numbers = race.cache.statistics()
    print(
        f"{race.num_used:,} leases used, {race.num_left:,} left or failed, {numbers.loads:,} loads, "
        f"{numbers.unloads:,} unloads, {time.monotonic() - began:.0f} s; seed {chosen.seed}"
    )
    if numbers.num_leased or numbers.loads != numbers.unloads:
        race.broken.append(f"something is left: {numbers}")
    for line in race.broken[:10]:
        print(f"BROKEN: {line}")
    return 1 if race.broken else 0


if __name__ == "__main__":
    sys.exit(main())
