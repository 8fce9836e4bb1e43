"""10,000 models in a pool with room for 100: how often a request finds its model, against one ideal LRU cache."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from bench.apps.serve_multiplex import BUDGET_BYTES, MODEL_BYTES, PLACES, REPLICAS, app
from bench.instance import running_instance
from bench.scenarios.base import Settings, say, warn_if_busy
from bench.table import Check, Report
from trygon import serve
from trygon.serve.handle import DeploymentHandle

__all__ = ["ideal_hits", "run_multiplex", "zipf"]

_MODELS = 10_000
_COLD = 1000
_COLUMNS = (
    *("Zipf exponent, requests at once", "req/s", "found loaded", "without a load", "ideal LRU"),
    *("found / ideal", "without / ideal", "memory grew, MiB"),
)
#: Exponent, requests under way.
_LOADS = ((1.0, 1), (1.0, 16), (1.2, 16), (1.2, 64))


def zipf(count: int, exponent: float, seed: int) -> list[str]:
    """Return `count` names of models, the n-th most wanted with a weight of n to the minus `exponent`."""
    weights = list(accumulate(rank**-exponent for rank in range(1, _MODELS + 1)))
    ranks = random.Random(seed).choices(range(_MODELS), cum_weights=weights, k=count)
    return [f"e{exponent:g}-s{seed}-m{rank}" for rank in ranks]


def ideal_hits(names: Iterable[str], places: int) -> int:
    """Return how many of `names` one cache with room for `places`, which gives up the longest unused, has."""
    cache: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for name in names:
        if name in cache:
            hits += 1
            cache.move_to_end(name)
            continue
        cache[name] = None
        if len(cache) > places:
            cache.popitem(last=False)
    return hits


def run_multiplex(settings: Settings) -> Report:
    """Ask for models in a Zipf order, then a thousand times at once for one that nobody has."""
    full = 2000 if settings.is_quick else 30_000
    title = f"{_MODELS:,} models, {REPLICAS} replicas with room for {PLACES} each, by handle"
    report = Report("multiplex", title, _COLUMNS)
    warn_if_busy(report)
    for number, (exponent, width) in enumerate(_LOADS):
        # One by one each load is waited for.
        count = full if width > 1 else full // 4
        # A fresh instance for each: the ideal cache begins empty too.
        with running_instance() as instance:
            handle = serve.run(app)
            say(f"multiplex: {count} requests, exponent {exponent:g}, {width} at once")
            _measure(handle, report, zipf(count, exponent, number), exponent, width)
            say(f"multiplex: {_COLD} requests at once for a model that nobody has")
            asyncio.run(_ask_cold(handle, instance.port, f"cold{number}"))
            loads = _total(_seen(handle), f"cold{number}")
            report.raw.append(f"cold model after {exponent:g}/{width}: {loads} loads for {_COLD} requests")
            report.checks.append(
                Check(f"loads of a cold model, {_COLD} requests at once", loads, 1, is_floor=False)
            )
    report.facts += [
        f"{full:,} requests for each row, {full // 4:,} where they come one by one; one run",
        "a load takes 5 ms, of the cold model 1 s",
    ]
    report.notes += [
        "without a load: the request caused none; found loaded: nor did it wait for one that another had begun",
        "ideal LRU: one cache of 100 places that is asked in the same order; its loads take no time, so who asks for "
        "a model that is being loaded counts as a hit there, and the bound is for the requests without a load",
        f"memory: of the replica that grew most; its budget is {BUDGET_BYTES >> 20} MiB, beside models in use",
    ]
    return report


def _measure(
    handle: DeploymentHandle, report: Report, names: Sequence[str], exponent: float, width: int
) -> None:
    before = _seen(handle)
    began = time.monotonic()
    asyncio.run(_ask(handle, names, width))
    took_s = time.monotonic() - began
    after = _seen(handle)
    count = len(names)
    hits, loads = (sum(one[key] for one in after) for key in ("hits", "loads"))
    found, spared, ideal = hits / count, 1 - loads / count, ideal_hits(names, REPLICAS * PLACES) / count
    page = resource.getpagesize()
    grew = (max(one["pages"] for one in after) - min(one["pages"] for one in before)) * page
    unused = max(one["most_unused"] for one in after)
    report.rows.append(
        [
            f"{exponent:g}, {width}",
            f"{count / took_s:,.0f}",
            *(f"{share:.4f}" for share in (found, spared, ideal)),
            f"{found / ideal:.3f}",
            f"{spared / ideal:.3f}",
            f"{grew / 2**20:.0f}",
        ]
    )
    which = f"exponent {exponent:g}, {width} at once"
    # Models of requests under way, and the loads, come on top of the budget.
    allowed = BUDGET_BYTES + (width + 8) * MODEL_BYTES
    report.checks += [
        Check(f"{which}: requests without a load / hits of an ideal LRU", spared / ideal, 0.95),
        Check(f"{which}: unused models", unused / 2**20, BUDGET_BYTES / 2**20, "MiB", is_floor=False),
        Check(f"{which}: growth of a replica", grew / 2**20, 2 * allowed / 2**20, "MiB", is_floor=False),
    ]
    report.raw.append(
        f"{which}: {hits} hits, {loads} loads in {took_s:.1f} s; by replica: "
        + ", ".join(f"{one['requests']} requests, {one['loads']} loads" for one in after)
    )


async def _ask(handle: DeploymentHandle, names: Sequence[str], width: int) -> None:
    left = iter(names)

    async def go() -> None:
        for name in left:
            assert name == await handle.options(multiplexed_model_id=name).remote()

    await asyncio.gather(*(go() for _ in range(width)))


async def _ask_cold(handle: DeploymentHandle, port: int, name: str) -> None:
    """Ask at once over HTTP and from this process."""
    chosen = handle.options(multiplexed_model_id=name)
    by_http = [_get(port, name) for _ in range(_COLD // 4)]
    by_handle = [_await(chosen.remote()) for _ in range(_COLD - len(by_http))]
    answers = Counter(await asyncio.gather(*by_http, *by_handle))
    assert answers == {name: _COLD}, answers


async def _await(response: Any) -> str:
    answer: str = await response
    return answer


async def _get(port: int, name: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nserve_multiplexed_model_id: {name}\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    return answer.rpartition(b"\r\n\r\n")[2].decode()


def _seen(handle: DeploymentHandle) -> list[dict[str, Any]]:
    return list(handle.broadcast("seen").results(timeout_s=20))


def _total(seen: Iterable[dict[str, Any]], name: str) -> int:
    return sum(one["cold"].get(name, 0) for one in seen)
