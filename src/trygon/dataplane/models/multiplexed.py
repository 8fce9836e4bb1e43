"""`serve.multiplexed`: a method that loads models, with a cache behind it for each object."""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any

from trygon.dataplane.batcher import NO_REQUEST
from trygon.dataplane.context import batch_context, request_context
from trygon.dataplane.models.board import ModelBoard
from trygon.dataplane.models.cache import CacheStatistics, ModelCache

__all__ = ["Loader", "Multiplexed", "get_multiplexed_model_id", "multiplexed", "replica_models"]

#: Where the running replica's caches belong, which tells callers of them and closes them; None outside of one.
replica_models: ContextVar[ModelBoard | None] = ContextVar("trygon_replica_models", default=None)


def get_multiplexed_model_id() -> str:
    """Return the model that the running request is for; empty when it named none, or outside of a request."""
    context = request_context.get()
    return context.multiplexed_model_id if context is not None else ""


class Loader:
    """A multiplexed method of one object: awaited with a model's name it gives the model."""

    __slots__ = ("cache",)

    def __init__(self, cache: ModelCache) -> None:
        self.cache = cache

    async def __call__(self, model_id: str, /) -> Any:
        """Return the model; inside a request it is not unloaded before the request ends.

        Raises:
            TypeError: The name is no string.
            ValueError: The name is empty.
            Exception: What the loader raised.
        """
        _check_id(model_id)
        model = await self.cache.acquire(model_id)
        _release_with_requests(functools.partial(self.cache.release, model_id))
        return model

    def lease(self, model_id: str) -> AbstractAsyncContextManager[Any]:
        """Give the model for a block, for code that outlives its request or runs outside of one."""
        _check_id(model_id)
        return self.cache.lease(model_id)

    def statistics(self) -> CacheStatistics:
        """Return what the cache holds and has done."""
        return self.cache.statistics()


class Multiplexed:
    """What the decorator makes of a loader; a descriptor, so that each object has a cache of its own."""

    def __init__(self, function: Callable[..., Awaitable[Any]], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._options = options
        self._loaders: weakref.WeakKeyDictionary[Any, Loader] = weakref.WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        return {"function": self._function, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["function"], state["options"])  # type: ignore[misc]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        # In the object itself: a table of weak references would keep it alive, because the loader is bound to it.
        # By the qualified name, so that a method and the one it overrides have a cache each.
        key = f"_trygon_loader_{self._function.__qualname__}"
        attributes = getattr(instance, "__dict__", None)
        if attributes is None:
            raise TypeError(
                f"serve.multiplexed keeps the models of {self._function.__qualname__!r} in the object, and "
                f"{type(instance).__name__!r} has __slots__ only; add '__dict__' to them"
            )
        loader = attributes.get(key)
        if loader is None:
            loader = attributes[key] = self._make(functools.partial(self._function, instance))
        return loader

    def _of_function(self) -> Loader:
        """Return the loader of a plain function, one for each loop: replicas may share a process."""
        loop = asyncio.get_running_loop()
        loader = self._loaders.get(loop)
        if loader is None:
            loader = self._loaders[loop] = self._make(self._function)
        return loader

    def _make(self, load: Callable[[str], Any]) -> Loader:
        cache = ModelCache(load, **self._options)
        board = replica_models.get()
        if board is not None:
            board.add(cache)
        return Loader(cache)

    async def __call__(self, *args: Any) -> Any:
        """Load through a plain function, or through a method found on its class."""
        if len(args) == 2:
            return await self.__get__(args[0])(args[1])
        return await self._of_function()(*args)

    def lease(self, model_id: str) -> AbstractAsyncContextManager[Any]:
        """As `Loader.lease`, of a plain function."""
        return self._of_function().lease(model_id)

    def statistics(self) -> CacheStatistics:
        """As `Loader.statistics`, of a plain function."""
        return self._of_function().statistics()


def multiplexed(  # noqa: PLR0913 - one keyword for each option
    func: Callable[..., Any] | None = None,
    max_num_models_per_replica: int = 3,
    *,
    max_bytes: int | None = None,
    sizeof: Callable[[Any], int] | None = None,
    max_parallel_loads: int | None = None,
    failure_ttl_s: float = 1.0,
    pin: Iterable[str] = (),
) -> Any:
    """Make an async method that loads a model by its name keep the models it loaded.

    Each decorated method of an object has a cache of its own. The model that a request gets is not unloaded before
    the request has ended. A model's `__del__`, async or not, is called when it is unloaded.

    Args:
        func: The loader, `async def(self, model_id)` or `async def(model_id)`.
        max_num_models_per_replica: Models to keep; -1 is no bound.
        max_bytes: Bytes to keep, besides the number of models; None is no bound.
        sizeof: Tells a model's bytes; without it the growth of the process is measured, one load at a time.
        max_parallel_loads: Loads at the same time; 4 by default, 1 where memory is measured.
        failure_ttl_s: For so many seconds after a failed load callers get the same error at once.
        pin: Models that are never unloaded once they are loaded.

    Raises:
        TypeError: The loader is no async function, or the number no integer.
        ValueError: A bound that cannot be kept.
    """
    if isinstance(max_num_models_per_replica, bool) or not isinstance(max_num_models_per_replica, int):
        raise TypeError(f"max_num_models_per_replica must be an integer, not {max_num_models_per_replica!r}")
    if max_num_models_per_replica < 1 and max_num_models_per_replica != -1:
        raise ValueError(
            "max_num_models_per_replica must be at least 1, or -1 for no bound, "
            f"not {max_num_models_per_replica!r}"
        )
    options = {
        "max_models": None if max_num_models_per_replica == -1 else max_num_models_per_replica,
        "max_bytes": max_bytes,
        "sizeof": sizeof,
        "max_parallel_loads": max_parallel_loads,
        "failure_ttl_s": failure_ttl_s,
        "pin": tuple(pin),
    }
    ModelCache(str, **options)  # type: ignore[arg-type]  # a mistake is told where it was made

    def decorate(function: Callable[..., Any]) -> Multiplexed:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"serve.multiplexed takes an async function or method, not {function!r}")
        return Multiplexed(function, options)

    return decorate if func is None else decorate(func)


def _release_with_requests(release: Callable[[], object]) -> None:
    """Call `release` when the running request has ended, in a batch when all of its requests have; now, if there is none."""
    requests = [request for request in batch_context.get() if request is not NO_REQUEST]
    if not requests:
        context = request_context.get()
        requests = [context] if context is not None and not batch_context.get() else []
    if len(requests) <= 1:
        if requests:
            requests[0].when_ended(release)
        else:
            release()
        return
    left = len(requests)

    def count_down() -> None:
        nonlocal left
        left -= 1
        if not left:
            release()

    for request in requests:
        request.when_ended(count_down)


def _check_id(model_id: object) -> None:
    if not isinstance(model_id, str):
        raise TypeError(f"a model id must be a string, not {model_id!r}")
    if not model_id:
        raise ValueError("a model id must not be empty; was the request sent with a model id?")
