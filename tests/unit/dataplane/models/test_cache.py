"""Loads are shared, bounded and survive their callers; models in use stay."""

from __future__ import annotations

import asyncio
import gc
import pickle
import random
import weakref
from typing import Any

import cloudpickle
import pytest

from trygon import serve
from trygon.dataplane.context import RequestContext, request_context
from trygon.dataplane.models.durations import BOUNDS_S, DurationsRecord
from trygon.serve.multiplexing import ModelCache


class Model:
    def __init__(self, name: str) -> None:
        self.name = name
        self.is_unloaded = False

    def __del__(self) -> None:
        self.is_unloaded = True


class AsyncModel(Model):
    async def __del__(self) -> None:  # type: ignore[override]
        self.is_unloaded = True


class Loads:
    """A loader with a door."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.door = asyncio.Event()
        self.most = self.now = 0
        self.error: Exception | None = None

    async def load(self, name: str) -> Model:
        self.names.append(name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.door.wait()
            if self.error is not None:
                raise self.error
            return Model(name)
        finally:
            self.now -= 1


def run(test: Any) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def test_a_thousand_uses_of_a_cold_model_load_it_once() -> None:
    async def test() -> None:
        loads = Loads()
        loads.door.set()
        cache = ModelCache(loads.load, max_models=1)

        models = await asyncio.gather(*(cache.acquire("m") for _ in range(1000)))

        assert ["m"] == loads.names
        assert 1 == len(set(map(id, models)))
        await cache.close()

    run(test())


def test_loads_run_in_parallel_up_to_the_cap() -> None:
    async def test() -> None:
        loads = Loads()
        cache = ModelCache(loads.load, max_parallel_loads=3)
        uses = [asyncio.ensure_future(cache.acquire(str(n))) for n in range(8)]
        while loads.now < 3:
            await asyncio.sleep(0)
        loads.door.set()
        await asyncio.gather(*uses)

        assert 3 == loads.most
        await cache.close()

    run(test())


def test_a_cancelled_caller_does_not_end_the_load_for_others() -> None:
    async def test() -> None:
        loads = Loads()
        cache = ModelCache(loads.load)
        first, second = (asyncio.ensure_future(cache.acquire("m")) for _ in range(2))
        while not loads.names:
            await asyncio.sleep(0)
        first.cancel()
        loads.door.set()

        assert "m" == (await second).name
        assert ["m"] == loads.names
        assert 1 == cache.statistics().num_leased
        await cache.close()

    run(test())


def test_a_failed_load_is_told_to_all_and_not_tried_at_once_again() -> None:
    async def test() -> None:
        loads = Loads()
        loads.error = ValueError("no such model")
        loads.door.set()
        cache = ModelCache(loads.load, failure_ttl_s=60)

        for _ in range(3):
            with pytest.raises(ValueError, match="no such model"):
                await cache.acquire("m")
        assert ["m"] == loads.names
        await cache.close()

    run(test())


def test_closing_ends_loads_and_uses() -> None:
    async def test() -> None:
        loads = Loads()
        cache = ModelCache(loads.load, max_parallel_loads=1)
        uses = [asyncio.ensure_future(cache.acquire(name)) for name in "ab"]
        await asyncio.sleep(0)
        await cache.close()

        errors = await asyncio.gather(*uses, return_exceptions=True)
        assert all(isinstance(error, serve.exceptions.RayServeException) for error in errors), errors

    run(test())


def test_no_model_is_unloaded_while_it_is_leased() -> None:
    """The race of 10,000 leases over few places."""

    async def test() -> None:
        async def load(name: str) -> AsyncModel:
            return AsyncModel(name)

        cache = ModelCache(load, max_bytes=5, sizeof=lambda _: 1)
        chance = random.Random(0)

        async def use(count: int) -> None:
            for _ in range(count):
                async with cache.lease(str(chance.randrange(20))) as model:
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)
                    assert not model.is_unloaded
                    numbers = cache.statistics()
                    assert numbers.held_bytes <= 5 + numbers.leased_bytes

        await asyncio.gather(*(use(500) for _ in range(20)))
        assert cache.statistics().num_models <= 5
        await cache.close()

    run(test())


def test_a_requests_model_stays_until_the_request_ends() -> None:
    class Host:
        @serve.multiplexed(max_num_models_per_replica=1)
        async def get_model(self, name: str) -> Model:
            return Model(name)

    async def test() -> None:
        host = Host()
        context = RequestContext()
        request_context.set(context)
        first = await host.get_model("a")
        await host.get_model("b")
        assert not first.is_unloaded

        context.end()
        while not first.is_unloaded:
            await asyncio.sleep(0)

        assert 1 == host.get_model.statistics().num_models
        await host.get_model.cache.close()

    run(test())


@pytest.mark.parametrize("number, error", [(0, ValueError), (-2, ValueError), ("3", TypeError)])
def test_a_bound_that_cannot_be_kept_is_refused(number: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_num_models_per_replica"):
        serve.multiplexed(max_num_models_per_replica=number)


def test_a_synchronous_loader_is_refused() -> None:
    with pytest.raises(TypeError, match="async"):
        serve.multiplexed(lambda self, name: name)


def test_a_model_id_must_be_a_string_with_something_in_it() -> None:
    class Host:
        @serve.multiplexed
        async def get_model(self, name: str) -> str:
            return name

    async def test() -> None:
        with pytest.raises(TypeError, match="string"):
            await Host().get_model(1)
        with pytest.raises(ValueError, match="empty"):
            await Host().get_model("")

    run(test())


@pytest.mark.parametrize("base", [object, Model, AsyncModel])
def test_nothing_keeps_a_model_when_its_cache_is_closed(base: type) -> None:
    """The thread that loaded it least of all; many times, since it is a race."""

    class Kind(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.me = self

    models: list[weakref.ref[Any]] = []

    def load(_: str) -> Any:
        model = Kind()
        models.append(weakref.ref(model))
        return model

    async def test() -> None:
        for _ in range(20):
            cache = ModelCache(load, max_models=2)
            for name in "abc":
                async with cache.lease(name):
                    pass
            await cache.close()
            gc.collect()
            assert [] == [model() for model in models if model() is not None]

    run(test())


def test_a_late_waiter_leaves_and_the_others_get_the_model() -> None:
    async def test() -> None:
        loads = Loads()
        cache = ModelCache(loads.load)
        other = asyncio.ensure_future(cache.acquire("m"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await cache.acquire("m")
        loads.door.set()

        assert "m" == (await other).name
        assert ["m"] == loads.names
        assert 1 == cache.statistics().num_leased
        await cache.close()

    run(test())


def test_a_thousand_waiters_get_the_same_error_of_one_load() -> None:
    async def test() -> None:
        loads = Loads()
        loads.error = ValueError("no such model")
        cache = ModelCache(loads.load, failure_ttl_s=60)
        waiting = [asyncio.ensure_future(cache.acquire("m")) for _ in range(1000)]
        await asyncio.sleep(0)
        loads.door.set()
        errors = await asyncio.gather(*waiting, return_exceptions=True)

        assert {id(loads.error)} == set(map(id, errors))
        assert ["m"] == loads.names
        await cache.close()

    run(test())


def test_statistics_tell_how_long_loads_and_unloads_took() -> None:
    async def test() -> None:
        loads = Loads()
        loads.door.set()
        cache = ModelCache(loads.load, max_models=1)
        for name in "aab":
            async with cache.lease(name):
                pass
        await cache.close()
        numbers = cache.statistics()

        assert (3, 1, 2, 2) == (numbers.requests, numbers.hits, numbers.loads, numbers.unloads)
        assert (2, 2) == (numbers.load_durations.count, numbers.unload_durations.count)
        assert 0 <= numbers.load_durations.total_s < 20

    run(test())


def test_durations_fall_into_the_bucket_of_their_bound() -> None:
    record = DurationsRecord()
    for seconds in (0.0, 0.001, 0.0011, 1000.0):
        record.add(seconds)
    durations = record.snapshot()

    assert (2, 1) == durations.counts[:2]
    assert 1 == durations.counts[-1]
    assert len(BOUNDS_S) + 1 == len(durations.counts)


def test_a_model_got_in_a_batch_stays_until_all_its_requests_have_ended() -> None:
    class Host:
        def __init__(self) -> None:
            self.model: Model | None = None

        @serve.multiplexed(max_num_models_per_replica=1)
        async def get_model(self, name: str) -> Model:
            return Model(name)

        @serve.batch(max_batch_size=2, batch_wait_timeout_s=10)
        async def work(self, items: list[int]) -> list[int]:
            self.model = await self.get_model("a")
            return items

    async def test() -> None:
        host = Host()
        requests = [RequestContext(), RequestContext()]

        async def ask(request: RequestContext, item: int) -> None:
            request_context.set(request)
            await host.work(item)

        await asyncio.gather(*(ask(request, item) for item, request in enumerate(requests)))
        async with host.get_model.lease("b"):
            pass
        assert host.model is not None
        requests[0].end()
        for _ in range(5):
            await asyncio.sleep(0)
        assert 1 == host.get_model.statistics().num_leased
        assert not host.model.is_unloaded

        requests[1].end()
        assert 0 == host.get_model.statistics().num_leased
        await host.get_model.cache.close()

    run(test())


def test_a_batch_outside_of_requests_keeps_no_model() -> None:
    class Host:
        @serve.multiplexed
        async def get_model(self, name: str) -> Model:
            return Model(name)

        @serve.batch(max_batch_size=2, batch_wait_timeout_s=10)
        async def work(self, items: list[int]) -> list[int]:
            await self.get_model("a")
            return items

    async def test() -> None:
        host = Host()
        await asyncio.gather(host.work(1), host.work(2))

        assert 0 == host.get_model.statistics().num_leased
        await host.get_model.cache.close()

    run(test())


def test_an_object_without_a_dict_is_refused_with_the_way_out() -> None:
    class Slotted:
        __slots__ = ()

        @serve.multiplexed
        async def get_model(self, name: str) -> str:
            return name

    with pytest.raises(TypeError, match="add '__dict__'"):
        _ = Slotted().get_model


def test_a_method_and_the_one_it_overrides_have_a_cache_each() -> None:
    class Base:
        @serve.multiplexed
        async def get_model(self, name: str) -> str:
            return f"base {name}"

    class Derived(Base):
        @serve.multiplexed
        async def get_model(self, name: str) -> str:
            return f"derived {await super().get_model(name)}"

    async def test() -> None:
        assert "derived base a" == await Derived().get_model("a")

    run(test())


def test_a_model_of_a_built_in_type_is_unloaded_without_complaint(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        cache = ModelCache(lambda name: (letter for letter in name))
        async with cache.lease("m"):
            pass
        await cache.close()

    run(test())
    assert not caplog.records


def test_a_plain_function_has_a_cache_too() -> None:
    @serve.multiplexed(max_num_models_per_replica=1)
    async def get_model(name: str) -> Model:
        return Model(name)

    async def test() -> None:
        copy = pickle.loads(cloudpickle.dumps(get_model))
        assert "a" == (await copy("a")).name
        async with copy.lease("b") as model:
            assert "b" == model.name
        assert 2 == copy.statistics().loads
        assert 0 == get_model.statistics().loads

    run(test())


def test_memory_that_cannot_be_measured_beside_other_loads_is_refused() -> None:
    with pytest.raises(ValueError, match="sizeof"):
        ModelCache(str, max_bytes=1, max_parallel_loads=2)
    with pytest.raises(ValueError, match="failure_ttl_s"):
        ModelCache(str, failure_ttl_s=-1)
    with pytest.raises(ValueError, match="max_bytes"):
        ModelCache(str, max_bytes=0)


def test_a_closed_cache_says_so() -> None:
    async def test() -> None:
        cache = ModelCache(str)
        await cache.close()
        with pytest.raises(serve.exceptions.RayServeException, match="closed"):
            await cache.acquire("m")

    run(test())


def test_without_sizeof_the_growth_of_the_process_is_the_size() -> None:
    async def test() -> None:
        cache = ModelCache(lambda _: b"x" * (32 << 20), max_bytes=1 << 30)
        async with cache.lease("m"):
            assert 16 << 20 < cache.statistics().held_bytes < 256 << 20
        await cache.close()

    run(test())
