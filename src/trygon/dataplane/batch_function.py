"""`serve.batch`: a function that takes lists, called with single items."""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from trygon.dataplane.batch_items import CallItem, StreamItem, UnaryItem
from trygon.dataplane.batch_options import BatchOptions, LiveOptions, Wait
from trygon.dataplane.batch_statistics import BatchCounter, BatchStatistics
from trygon.dataplane.batcher import NO_REQUEST, Batcher
from trygon.dataplane.context import request_context
from trygon.dataplane.replica_context import current_replica_context

__all__ = ["IterationStartTimes", "batch"]

F = TypeVar("F", bound=Callable[..., Any])

#: The wrapper's way back to its `_Batched`; `functools.wraps` of an outer decorator copies it along.
_MARK = "_trygon_batched"


@dataclass(frozen=True)
class IterationStartTimes:
    """When the batches that run now began, in seconds of their loop's clock."""

    start_times: list[float]

    @property
    def min_start_time(self) -> float | None:
        """The earliest, or None when nothing runs."""
        return min(self.start_times, default=None)

    @property
    def mean_start_time(self) -> float | None:
        """The mean, or None when nothing runs."""
        return sum(self.start_times) / len(self.start_times) if self.start_times else None

    @property
    def max_start_time(self) -> float | None:
        """The latest, or None when nothing runs."""
        return max(self.start_times, default=None)

    @property
    def num_requests(self) -> int:
        """How many batches run."""
        return len(self.start_times)


class _Batched:
    """One decorated function: its options, and a queue for each object and loop it is called on."""

    def __init__(self, function: Callable[..., Any], options: BatchOptions) -> None:
        self.function = function
        self.options = options
        self.is_stream = inspect.isasyncgenfunction(function)
        self._name = getattr(function, "__name__", type(function).__name__)
        self._signature = inspect.signature(function)
        #: By the replica that changed them: in local testing mode several share the function.
        self._live: dict[str, LiveOptions] = {}
        self._batchers: dict[tuple[int, int], Batcher] = {}
        #: Tell when an object goes, so that its queue goes too.
        self._owners: dict[int, weakref.ref[Any]] = {}
        self._methods_of: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()
        self._counter = BatchCounter()

    def __reduce__(self) -> tuple[type[_Batched], tuple[Callable[..., Any], BatchOptions]]:
        # Queues stay where they are: a pickled function starts without any.
        return _Batched, (self.function, self.options)

    # ---- calls

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Batcher, UnaryItem]:
        """Let a call wait for its answer, which comes in the item's future."""
        batcher, item = self._prepare(UnaryItem, args, kwargs)
        item.future = batcher.loop.create_future()
        batcher.add(item)
        return batcher, item

    def stream(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Let a call wait for its answers, and return their stream."""
        batcher, item = self._prepare(StreamItem, args, kwargs)
        stream = item.start(batcher.leave)
        batcher.add(item)
        return stream

    def _prepare(
        self, kind: type[ItemT], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Batcher, ItemT]:
        owner = None
        if args and self._is_method_of(args[0]):
            owner = args[0]
        batcher = self._batcher(owner)
        if owner is not None:
            if len(args) != 2 or kwargs:
                args, kwargs = self._bound(args, kwargs)
            args = args[1:]
        elif len(args) != 1 or kwargs:
            args, kwargs = self._bound(args, kwargs)
        request = request_context.get() or NO_REQUEST
        group: Any = request.multiplexed_model_id
        if len(args) != 1 or kwargs:
            # Only calls with the same arguments can become columns.
            group = (group, len(args), *kwargs)
        return batcher, kind(args, kwargs, group, arrived_at=batcher.loop.time(), request=request)

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments in one form, whether they were named or not; a TypeError names a wrong one."""
        bound = self._signature.bind(*args, **kwargs)
        return bound.args, dict(sorted(bound.kwargs.items()))

    def _is_method_of(self, first: Any) -> bool:
        """Whether the function is a method of the object that it was called with."""
        kind = first if isinstance(first, type) else type(first)
        known = self._methods_of.get(kind)
        if known is None:
            known = self._methods_of[kind] = any(
                getattr(getattr(value, "__func__", value), _MARK, None) is self
                for each in kind.__mro__
                for value in vars(each).values()
            )
        return known

    def _batcher(self, owner: Any) -> Batcher:
        loop = asyncio.get_running_loop()
        key = (id(owner), id(loop))
        batcher = self._batchers.get(key)
        if batcher is None or batcher.loop is not loop:
            batcher = self._batchers[key] = self._make_batcher(owner)
        return batcher

    def _make_batcher(self, owner: Any) -> Batcher:
        # Copies: in local testing mode other replicas' loops, on threads of their own, use the same function.
        for key, each in list(self._batchers.items()):
            if each.loop.is_closed():
                self._batchers.pop(key, None)
        function = self.function
        if owner is not None:
            try:
                self._owners[id(owner)] = reference = weakref.ref(owner, self._forget(id(owner)))
                function = _Method(self.function, reference)
            except TypeError:  # an object that cannot be referred to weakly: it stays
                function = functools.partial(self.function, owner)
        return Batcher(
            function,
            name=self._name,
            settings=self._options_here().settings,
            counter=self._counter,
            is_stream=self.is_stream,
            bisects=self.options.bisect_on_error,
        )

    def _forget(self, owner_id: int) -> Callable[[object], None]:
        def forget(_: object) -> None:
            self._owners.pop(owner_id, None)
            for key in list(self._batchers):
                if key[0] == owner_id:
                    self._batchers.pop(key, None)

        return forget

    # ---- options

    def _options_here(self) -> LiveOptions:
        replica = current_replica_context()
        where = replica.replica_id.unique_id if replica is not None else ""
        live = self._live.get(where)
        if live is None:
            live = self._live[where] = LiveOptions(self._name, self.options)
        return live

    def get_max_batch_size(self) -> int:
        """Return how many items a batch may have."""
        return self._options_here().settings.max_batch_size

    def get_batch_wait_timeout_s(self) -> Wait:
        """Return how long a batch waits to be full, or "auto"."""
        return self._options_here().batch_wait_timeout_s

    def set_max_batch_size(self, new_max_batch_size: int) -> None:
        """Make batches of at most so many items from now on."""
        self._options_here().set_max_batch_size(new_max_batch_size)

    def set_batch_wait_timeout_s(self, new_batch_wait_timeout_s: Wait) -> None:
        """Wait so many seconds for a batch to fill from now on; "auto" tunes the wait."""
        self._options_here().set_batch_wait_timeout_s(new_batch_wait_timeout_s)

    # ---- introspection

    def statistics(self) -> BatchStatistics:
        """Return what was counted of this function's batches in this process."""
        batchers = list(self._batchers.values())
        return self._counter.statistics(
            num_waiting=sum(len(each.queue) for each in batchers),
            num_running=sum(len(each.running) for each in batchers),
        )

    def start_times(self) -> IterationStartTimes:
        """Return when the batches that run now began."""
        batchers = list(self._batchers.values())
        return IterationStartTimes([time for each in batchers for time in list(each.running.values())])

    async def is_alive(self) -> bool:
        """Return whether batches can run: there is no task that could have died, so always."""
        return True

    async def stacks(self) -> str:
        """Return the stacks of the batches that run now."""
        return "".join(each.stacks() for each in list(self._batchers.values()))


ItemT = TypeVar("ItemT", bound=CallItem)


class _Method:
    """A method bound to an object that it does not keep alive; its waiting callers do."""

    __slots__ = ("_function", "_owner")

    def __init__(self, function: Callable[..., Any], owner: weakref.ref[Any]) -> None:
        self._function = function
        self._owner = owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(self._owner(), *args, **kwargs)


def _wrap(batched: _Batched) -> Any:
    """Return what stands in for the function; it refers to `batched` alone, so that it pickles by value."""
    wrapper: Any
    if batched.is_stream:

        @functools.wraps(batched.function)
        def stream_wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            return batched.stream(args, kwargs)

        # A plain function, so that a call waits from the moment it is made; the replica must know it all the same.
        vars(stream_wrapper)["_trygon_stream"] = True
        wrapper = stream_wrapper
    else:

        @functools.wraps(batched.function)
        async def wrapper_of_one(*args: Any, **kwargs: Any) -> Any:
            batcher, item = batched.call(args, kwargs)
            try:
                return await item.future
            except (asyncio.CancelledError, GeneratorExit):
                item.future.cancel()
                batcher.leave(item)
                raise

        wrapper = wrapper_of_one
    vars(wrapper).update(
        {
            _MARK: batched,
            "set_max_batch_size": batched.set_max_batch_size,
            "set_batch_wait_timeout_s": batched.set_batch_wait_timeout_s,
            "statistics": batched.statistics,
            # Underscored in Ray Serve too, whose documentation tells users to call them.
            "_get_max_batch_size": batched.get_max_batch_size,
            "_get_batch_wait_timeout_s": batched.get_batch_wait_timeout_s,
            "_get_curr_iteration_start_times": batched.start_times,
            "_is_batching_task_alive": batched.is_alive,
            "_get_handling_task_stack": batched.stacks,
        }
    )
    return wrapper


@overload
def batch(_func: F, /) -> F: ...


@overload
def batch(
    _func: None = None,
    /,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float | Literal["auto"] = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
    *,
    target_latency_s: float | None = None,
    bisect_on_error: bool = False,
) -> Callable[[F], Callable[..., Any]]: ...


def batch(
    _func: Callable[..., Any] | None = None,
    /,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float | Literal["auto"] = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
    *,
    target_latency_s: float | None = None,
    bisect_on_error: bool = False,
) -> Any:
    """Collect single calls of an `async def` function into lists.

    The function takes a list for each of its parameters, and returns a list with one result for each call, in
    the order of the calls; or, as an async generator, yields such lists, where `StopIteration` ends one call's
    stream. Its callers pass single items and get their own result. Each object has a queue of its own.

    A call that is cancelled, or whose deadline has passed, before its batch begins never reaches the function.
    Later its result is dropped; when all calls of a batch are gone, the batch is cancelled.

    The decorated function has `set_max_batch_size(n)`, `set_batch_wait_timeout_s(s)` and `statistics()`.

    Args:
        max_batch_size: Items of a batch at most.
        batch_wait_timeout_s: Seconds the first item of a batch waits for more. With 0 a batch has what has come;
            with "auto" it waits as long as that pays, by what was measured of batches and arrivals.
        max_concurrent_batches: Batches that run at once.
        batch_size_fn: Measures a list of items (of the first argument) in place of `len`. An item that alone is
            larger than `max_batch_size` fails with a RuntimeError.
        target_latency_s: Seconds from an item's arrival to its result that "auto" does not exceed by waiting;
            0.1 when not given.
        bisect_on_error: Run the halves of a batch that failed, and theirs, until the items that fail are alone,
            so that the others succeed. For functions without side effects that must not happen twice.

    Raises:
        TypeError: The function is not `async def`, or an option is of a wrong type.
        ValueError: An option is out of range.

    Example:
        >>> from trygon import serve
        >>> class Model:
        ...     @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.05)
        ...     async def predict(self, numbers: list[int]) -> list[int]:
        ...         return [number * 2 for number in numbers]
        >>> import asyncio
        >>> asyncio.run(Model().predict(21))
        42
    """
    options = BatchOptions.checked(
        max_batch_size=max_batch_size,
        batch_wait_timeout_s=batch_wait_timeout_s,
        max_concurrent_batches=max_concurrent_batches,
        batch_size_fn=batch_size_fn,
        target_latency_s=target_latency_s,
        bisect_on_error=bisect_on_error,
    )

    def decorate(function: Callable[..., Any]) -> Any:
        if not callable(function):
            raise TypeError(f"serve.batch decorates functions and methods, found {function!r}")
        if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
            raise TypeError(
                f"serve.batch needs an 'async def' function, found {getattr(function, '__name__', function)!r}; "
                "make it async, and run what blocks inside of it"
            )
        return _wrap(_Batched(function, options))

    return decorate if _func is None else decorate(_func)
