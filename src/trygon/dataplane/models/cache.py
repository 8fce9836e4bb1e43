"""`ModelCache`: loads models when they are asked for, shares them, and unloads the longest unused."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from trygon.dataplane.context import RequestContext, request_context
from trygon.dataplane.models.durations import Durations, DurationsRecord
from trygon.dataplane.models.memory import free_memory, rss_bytes
from trygon.dataplane.models.news import ModelState
from trygon.dataplane.models.policy import Admission, CachePolicy
from trygon.dataplane.models.user_code import finalize, in_thread
from trygon.errors import ServeError

__all__ = ["CacheStatistics", "ModelCache"]

logger = logging.getLogger("ray.serve")

#: Loads that run at the same time unless the user says otherwise.
DEFAULT_PARALLEL_LOADS = 4
#: Memory is given back once for all unloads of this many seconds.
TIDY_PAUSE_S = 0.2


@dataclass(frozen=True)
class CacheStatistics:
    """What a cache holds and has done.

    Attributes:
        num_models: Models that are loaded.
        num_leased: Those of them in use.
        num_loading: Loads under way.
        num_waiting: Uses that wait for a load.
        held_bytes: Bytes of the loaded models; 0 without a byte budget.
        leased_bytes: Bytes of those in use.
        hits: Uses that found their model loaded.
        misses: Uses that waited for a load, or were told of a failed one.
        loads: Loads that succeeded.
        load_failures: Loads that failed.
        unloads: Models that were unloaded.
        load_durations: How long the successful loads took, without the wait for their turn.
        unload_durations: How long the models' `__del__` took.
    """

    num_models: int
    num_leased: int
    num_loading: int
    num_waiting: int
    held_bytes: int
    leased_bytes: int
    hits: int
    misses: int
    loads: int
    load_failures: int
    unloads: int
    load_durations: Durations
    unload_durations: Durations

    @property
    def requests(self) -> int:
        """Uses, of all kinds."""
        return self.hits + self.misses


class _Load:
    """One load, and all who wait for it."""

    __slots__ = ("done", "error", "trace")

    def __init__(self, done: asyncio.Future[None]) -> None:
        #: Set when the load has ended, well or not.
        self.done = done
        self.error: Exception | None = None
        self.trace: Any = None

    def fail(self, error: Exception) -> None:
        # The frames' variables may be a half-loaded model; the error is kept for a while.
        traceback.clear_frames(error.__traceback__)
        self.error = error
        self.trace = error.__traceback__


class ModelCache:
    """Keeps models by name, loaded once for all who ask, within a bound of models or bytes.

    A model is loaded in a task of its own: a caller that is cancelled does not end the load for the others. When
    all have left, a load that was begun goes on and its model is kept; one that still waited for its turn is dropped.
    A leased or pinned model is never unloaded, so the bounds may be passed by what is leased, pinned or being loaded.
    All methods belong to one event loop.

    Args:
        load: Called with a name; returns the model. A synchronous function runs in a thread.
        max_models: Models to keep; None is no bound.
        max_bytes: Bytes to keep; None is no bound.
        sizeof: Tells a model's bytes. Without it the growth of the process's memory during the load is taken, which
            needs loads one at a time.
        max_parallel_loads: Loads at the same time; 4 by default, 1 where memory is measured.
        failure_ttl_s: For so many seconds after a failed load callers get the same error at once.
        pin: Names that are never unloaded once they are loaded.

    Raises:
        ValueError: A bound that cannot be kept.
    """

    def __init__(  # noqa: PLR0913 - one keyword for each option
        self,
        load: Callable[[str], Any],
        *,
        max_models: int | None = None,
        max_bytes: int | None = None,
        sizeof: Callable[[Any], int] | None = None,
        max_parallel_loads: int | None = None,
        failure_ttl_s: float = 1.0,
        pin: Iterable[str] = (),
    ) -> None:
        is_measured = max_bytes is not None and sizeof is None
        loads = max_parallel_loads or (1 if is_measured else DEFAULT_PARALLEL_LOADS)
        for name, value in (
            ("max_models", max_models),
            ("max_bytes", max_bytes),
            ("max_parallel_loads", loads),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        if is_measured and loads > 1:
            raise ValueError(
                f"max_parallel_loads={loads!r} with max_bytes needs sizeof=: the memory that one load takes cannot be "
                "measured while others run"
            )
        if failure_ttl_s < 0:
            raise ValueError(f"failure_ttl_s must be 0 or more, not {failure_ttl_s!r}")
        self._load = load
        self._sizeof = sizeof
        self._is_measured = is_measured
        self._has_budget = max_bytes is not None
        self._policy = CachePolicy(
            max_models=max_models,
            max_bytes=max_bytes,
            max_parallel_loads=loads,
            failure_ttl_s=failure_ttl_s,
            pin=pin,
        )
        self._models: dict[str, Any] = {}
        self._loads: dict[str, _Load] = {}
        #: The last failed load of each name that the policy remembers.
        self._failures: dict[str, _Load] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._tidying: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._counts = dict.fromkeys(("hits", "misses", "loads", "load_failures", "unloads"), 0)
        self._load_durations = DurationsRecord()
        self._unload_durations = DurationsRecord()
        #: Called with the name of a model that is loaded, loading or gone since the last call; see `state_of`.
        self.on_change: Callable[[str], object] = _ignore

    # ---- uses

    @asynccontextmanager
    async def lease(self, key: str) -> AsyncIterator[Any]:
        """Give the model of `key`, which is not unloaded before the block is left.

        Raises:
            Exception: What the load raised.
        """
        model = await self.acquire(key)
        try:
            yield model
        finally:
            self.release(key)

    async def acquire(self, key: str) -> Any:
        """Lease the model of `key`; each call needs one `release`. Cancelled or failed, nothing is leased.

        Raises:
            Exception: What the load raised.
            ServeError: The cache is closed.
        """
        if self._is_closed:
            raise ServeError(f"the cache is closed, so model {key!r} cannot be used")
        loop = asyncio.get_running_loop()
        admission = self._policy.admit(key, loop.time())
        if admission is Admission.HELD:
            self._counts["hits"] += 1
            return self._models[key]
        self._counts["misses"] += 1
        if admission is Admission.FAILED:
            failure = self._failures[key]
            assert failure.error is not None
            raise failure.error.with_traceback(failure.trace)
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = _Load(loop.create_future())
            self.on_change(key)
            self._begin_loads()
        await self._wait(key, load)
        if self._is_closed:
            raise ServeError(f"the cache was closed, so model {key!r} cannot be used")
        return self._models[key]

    async def _wait(self, key: str, load: _Load) -> None:
        try:
            await asyncio.shield(load.done)
        except asyncio.CancelledError:
            if not load.done.done():
                self._policy.leave(key)
                if key not in self._policy:
                    del self._loads[key]
                    self.on_change(key)
            elif load.error is None:
                # The load ended in the same turn, and leased the model to this caller.
                self.release(key)
            raise
        if load.error is not None:
            raise load.error.with_traceback(load.trace)

    def release(self, key: str) -> None:
        """End a lease."""
        if key in self._models:
            self._unload_later(self._policy.release(key))

    def statistics(self) -> CacheStatistics:
        """Return what the cache holds and has done."""
        policy = self._policy
        return CacheStatistics(
            num_models=policy.num_ready,
            num_leased=policy.num_leased,
            num_loading=policy.num_loading,
            num_waiting=policy.num_waiting,
            held_bytes=policy.held_bytes,
            leased_bytes=policy.leased_bytes,
            load_durations=self._load_durations.snapshot(),
            unload_durations=self._unload_durations.snapshot(),
            **self._counts,
        )

    def state_of(self, key: str) -> ModelState:
        """Return whether the model is loaded, being loaded (or waiting for its turn), or neither."""
        if key in self._models:
            return ModelState.LOADED
        return ModelState.LOADING if key in self._loads else ModelState.GONE

    @property
    def models(self) -> list[str]:
        """Names of the loaded models."""
        return self._policy.keys

    # ---- loads

    def _begin_loads(self) -> None:
        while not self._is_closed and (begun := self._policy.next_load()) is not None:
            key, victims = begun
            self._spawn(self._run_load(key, self._take(victims)))

    async def _run_load(self, key: str, victims: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        load = self._loads[key]
        # Not the first caller's: its end must not cancel the calls that the load makes.
        caller = request_context.get() or RequestContext()
        request_context.set(RequestContext(caller.route, caller.request_id, caller.app_name, key))
        try:
            await self._unload(victims)
            before = await self._measure() if self._is_measured else 0
            began = loop.time()
            model = await self._call_load(key)
            size = self._size(model, before)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a user's loader raises anything
            self._fail(key, load, error)
        else:
            self._counts["loads"] += 1
            self._load_durations.add(loop.time() - began)
            self._models[key] = model
            self._failures.pop(key, None)
            self._unload_later(self._policy.loaded(key, size))
        finally:
            self._loads.pop(key, None)
            self.on_change(key)
            if not load.done.done():
                load.done.set_result(None)
            self._begin_loads()

    def _fail(self, key: str, load: _Load, error: BaseException) -> None:
        self._counts["load_failures"] += 1
        if not isinstance(error, Exception):
            error = ServeError(f"loading model {key!r} was cancelled")
        load.fail(error)
        for name in self._policy.failed(key, asyncio.get_running_loop().time()):
            self._failures.pop(name, None)
        self._failures[key] = load

    async def _call_load(self, key: str) -> Any:
        if inspect.iscoroutinefunction(self._load):
            return await self._load(key)
        model = await in_thread(self._load, key)
        return await model if inspect.isawaitable(model) else model

    async def _measure(self) -> int:
        await asyncio.to_thread(free_memory)
        return rss_bytes()

    def _size(self, model: Any, before: int) -> int:
        if not self._has_budget:
            return 0
        if self._sizeof is not None:
            return int(self._sizeof(model))
        return max(rss_bytes() - before, sys.getsizeof(model))

    # ---- unloads

    def _take(self, keys: list[str]) -> list[Any]:
        self._counts["unloads"] += len(keys)
        models = [self._models.pop(key) for key in keys]
        for key in keys:
            self.on_change(key)
        return models

    def _unload_later(self, keys: list[str]) -> None:
        if keys:
            self._spawn(self._unload(self._take(keys)))

    async def _unload(self, models: list[Any]) -> None:
        if not models:
            return
        loop = asyncio.get_running_loop()
        while models:
            began = loop.time()
            try:
                await finalize(models.pop())
                self._unload_durations.add(loop.time() - began)
            except Exception:  # a user's finalizer raises anything; the model goes all the same
                logger.exception("the __del__ of a model failed")
        if self._tidying is None and not self._is_closed:
            self._tidying = asyncio.get_running_loop().call_later(TIDY_PAUSE_S, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        self._spawn(asyncio.to_thread(free_memory))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel loads, unload every model, in use or not, and give the memory back; uses that wait get a ServeError.

        A synchronous loader cannot be cancelled: its thread goes on, and its model is dropped when it ends.
        """
        self._is_closed = True
        if self._tidying is not None:
            self._tidying.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for load in self._loads.values():
            # Those whose turn had not come.
            load.done.set_result(None)
        left = list(self._loads)
        self._loads.clear()
        for key in left:
            self.on_change(key)
        if self._models:
            await self._unload(self._take(list(self._models)))
            await asyncio.to_thread(free_memory)


def _ignore(key: str) -> None:
    """Nobody is told of changes."""
