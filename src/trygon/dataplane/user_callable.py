"""The user's class or function inside its replica: construction, methods, hooks."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from trygon.dataplane.context import request_context
from trygon.dataplane.slots import Slot
from trygon.errors import RequestTimeoutError, ServeError

__all__ = ["Method", "UserCallable"]

#: Hooks that get a thread of their own: a full pool of requests must not delay them.
_CONTROL_THREADS = 2


class Method:
    """One callable of the user, looked at once."""

    __slots__ = ("function", "is_async", "is_async_generator", "is_generator", "takes_argument")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        target = _inner(function)
        self.is_async_generator = inspect.isasyncgenfunction(target)
        self.is_generator = inspect.isgeneratorfunction(target)
        self.is_async = inspect.iscoroutinefunction(target)
        if not self.is_async and getattr(target, "_trygon_stream", False):
            # A batched generator: a plain function that returns a stream, and must be called on the loop.
            self.is_async_generator = True
        self.takes_argument = _takes_argument(function)


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what decides between sync and async: a callable object's __call__, a partial's function."""
    while True:
        wrapped = getattr(function, "func", None)
        if wrapped is not None and type(function).__name__ == "partial":
            function = wrapped
            continue
        break
    if inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function):
        return function
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the type's, as Python calls it
    return call if inspect.isfunction(call) else function


def _takes_argument(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind is not inspect.Parameter.KEYWORD_ONLY for p in parameters)


class UserCallable:
    """Builds the user's object and finds its methods.

    Async code runs on the replica's loop, synchronous code in a pool of `max_ongoing_requests` threads,
    so that a blocking call stalls neither I/O nor control.
    """

    def __init__(self, name: str, max_threads: int) -> None:
        self.name = name
        self.instance: Any = None
        self.threads = ThreadPoolExecutor(max_threads, thread_name_prefix="request")
        self._control = ThreadPoolExecutor(_CONTROL_THREADS, thread_name_prefix="control")
        self._methods: dict[str, Method] = {}
        self._is_function = False

    async def construct(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the constructor on the loop's thread; an `async def __init__` is awaited."""
        if not inspect.isclass(target):
            self._is_function = True
            self.instance = target
            return
        if not inspect.iscoroutinefunction(target.__init__):
            self.instance = target(*args, **kwargs)
            return
        instance = target.__new__(target)
        await target.__init__(instance, *args, **kwargs)
        self.instance = instance

    def method(self, name: str) -> Method:
        """Return a method by name.

        Raises:
            ServeError: There is none; lists those that exist.
        """
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = Method(self._find(name))
        return method

    def _find(self, name: str) -> Callable[..., Any]:
        if self._is_function:
            if name == "__call__":
                function: Callable[..., Any] = self.instance
                return function
            raise ServeError(
                f"deployment {self.name!r} is a function and has no method {name!r}; call handle.remote(...)"
            )
        found = getattr(self.instance, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
        if name == "__call__":
            predict = getattr(self.instance, "predict", None)
            if callable(predict):
                return predict  # type: ignore[no-any-return]
        raise ServeError(
            f"deployment {self.name!r} has no method {name!r}; it has: {', '.join(self._public_methods()) or 'none'}"
        )

    def _public_methods(self) -> list[str]:
        kind = type(self.instance)
        return sorted(
            name
            for name in dir(kind)
            if (name == "__call__" or not name.startswith("_")) and callable(getattr(kind, name, None))
        )

    def has_method(self, name: str) -> bool:
        """Whether user code defines a method of that name."""
        return not self._is_function and callable(getattr(self.instance, name, None))

    def resize(self, max_threads: int) -> None:
        """Work with so many request threads from now on; work that was begun or waits is finished."""
        old = self.threads
        self.threads = ThreadPoolExecutor(max_threads, thread_name_prefix="request")
        old.shutdown(wait=False)

    # ---- running

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[list[Any]]:
        """Run synchronous code in the request pool, with the context of the caller.

        The result is [value, error]: futures change some exceptions, and cannot hold others.
        """
        context = contextvars.copy_context()
        return self.threads.submit(context.run, _call, function, args, kwargs)

    def _submit_in_time(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[list[Any]]:
        """As `submit`; what gets its thread when the request's time is over is not run."""
        context = contextvars.copy_context()
        request = request_context.get()
        call = _call if request is None or not request.deadline else _call_in_time
        return self.threads.submit(context.run, call, function, args, kwargs)

    async def run(self, method: Method, slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a method for the request that holds `slot`; return what it returns, a generator included."""
        if method.is_async:
            return await method.function(*args, **kwargs)
        if method.is_generator or method.is_async_generator:
            return method.function(*args, **kwargs)
        result = await self.run_in_thread(slot, method.function, *args, **kwargs)
        if hasattr(result, "__await__"):
            return await result
        return result

    async def run_in_thread(self, slot: Slot, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run synchronous code for the request that holds `slot`; cancelling leaves the thread running."""
        loop = asyncio.get_running_loop()
        future = slot.working = self._submit_in_time(function, args, kwargs)
        try:
            outcome = await asyncio.wrap_future(future, loop=loop)
        except asyncio.CancelledError:
            slot.leave_after(future, loop)
            raise
        slot.working = None
        result, error = outcome
        # The thread's frame holds the list, and the error's traceback that frame: a cycle.
        outcome.clear()
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback holds this frame: a cycle would keep the arguments until the collector comes.
                del error, future
        return result

    async def run_hook(self, name: str, *args: Any) -> Any:
        """Call a hook such as `reconfigure` or `check_health`: async on the loop, sync on a control thread."""
        function = getattr(self.instance, name)
        if inspect.iscoroutinefunction(_inner(function)):
            return await function(*args)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._control, lambda: context.run(function, *args))
        if inspect.isawaitable(result):
            return await result
        return result

    async def reconfigure(self, user_config: Any) -> None:
        """Give `user_config` to the user's `reconfigure`.

        Raises:
            ServeError: There is a user_config and no method to take it.
        """
        if not self.has_method("reconfigure"):
            if user_config is None:
                return
            raise ServeError(
                f"deployment {self.name!r} has a user_config but no method reconfigure(self, user_config); "
                "add the method or remove the user_config"
            )
        parameters = inspect.signature(self.instance.reconfigure).parameters
        if user_config is None and "rank" not in parameters:
            return
        await self.run_hook("reconfigure", user_config)

    async def check_health(self) -> None:
        """Call the user's `check_health` if there is one; raising means unhealthy."""
        if self.has_method("check_health"):
            await self.run_hook("check_health")

    async def close(self) -> None:
        """Call the user's `__del__` once, awaiting it if it is async, and end the threads."""
        instance, self.instance = self.instance, None
        self._methods.clear()
        if not self._is_function and instance is not None:
            finalizer = getattr(type(instance), "__del__", None)
            if finalizer is not None:
                await _call_finalizer(type(instance), finalizer, instance)
        self.threads.shutdown(wait=False, cancel_futures=True)
        self._control.shutdown(wait=False, cancel_futures=True)


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    try:
        return [function(*args, **kwargs), None]
    except BaseException as error:  # noqa: BLE001 - raised again by whoever awaits the thread
        return [None, error]


def _call_in_time(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    request = request_context.get()
    if request is not None:
        try:
            request.refuse_late()
        except RequestTimeoutError as error:
            return [None, error]
    return _call(function, args, kwargs)


async def _call_finalizer(
    kind: type, finalizer: Callable[[Any], Awaitable[None] | None], instance: Any
) -> None:
    try:
        result = finalizer(instance)
        if inspect.isawaitable(result):
            await result
    finally:
        # Python would call it again when the object goes; the user's clean-up must run once.
        try:
            instance.__class__ = type(kind.__name__, (kind,), {"__del__": lambda _self: None})
        except TypeError:
            _finalized.append(instance)


#: Objects whose class cannot be changed (slots); kept so that their finalizer is not run again.
_finalized: list[Any] = []
