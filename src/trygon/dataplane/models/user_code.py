"""Calling loaders and the `__del__` of models, so that nothing of a model is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["finalize", "in_thread"]


async def finalize(model: Any) -> None:
    """Call the model's `__del__` once: awaited if it is async, else in a thread."""
    kind = type(model)
    finalizer = getattr(kind, "__del__", None)
    if finalizer is None:
        return
    try:
        if inspect.iscoroutinefunction(finalizer):
            await finalizer(model)
        else:
            await in_thread(finalizer, model)
    finally:
        # Python would call it again when the object goes; the user's clean-up must run once. Types that are not
        # written in Python take no sub-class, and bear to be asked twice.
        with contextlib.suppress(TypeError):
            model.__class__ = type(kind.__name__, (kind,), {"__slots__": (), "__del__": lambda _self: None})


async def in_thread(function: Callable[[Any], Any], argument: Any) -> Any:
    """Call `function` in a thread that keeps neither the argument nor the result.

    A worker thread sets its result and drops it a little later, when it runs again; a model would live on meanwhile,
    and with it a whole cycle until the next collection. So both pass in a box that is emptied.
    """
    box = [argument]

    def call() -> None:
        box.append(function(box.pop()))

    await asyncio.to_thread(call)
    return box.pop()
