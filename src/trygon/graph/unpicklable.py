"""Finds the part of a definition that cannot be pickled, and says so in one paragraph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from trygon.graph.asgi import AsgiIngress
from trygon.graph.deployment import Application
from trygon.graph.pickler import dump_value

__all__ = ["explain"]

#: How far the search follows attributes and items; a longer path helps nobody.
_MAX_DEPTH = 5

_Fails = Callable[[object], bool]
_Replace = Callable[[Application], object]


def explain(
    target: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    replace: _Replace | None,
    error: BaseException,
) -> str:
    """Return what fails, why, and what to do, after `error` came out of pickling the whole."""
    reason = f"{type(error).__name__}: {error}"
    for path, value in [(f"argument {i}", arg) for i, arg in enumerate(args)] + [
        (f"argument {key!r}", arg) for key, arg in kwargs.items()
    ]:
        found = _search(path, value, _failing(replace, is_argument=True))
        if found is not None:
            return (
                f"{found} cannot be pickled ({reason}); pass what is needed to make it, such as a path or an "
                "address, and make it in the constructor"
            )
    found = _search(getattr(target, "__qualname__", repr(target)), target, _failing(None, is_argument=False))
    if found is not None and _INGRESS in found:
        return (
            f"the app given to serve.ingress cannot be pickled ({reason}); give serve.ingress a function that "
            "builds the app, or move the class and the app into a module that can be imported"
        )
    return (
        f"{found or target!r} cannot be pickled ({reason}); make it in the constructor, "
        "or move the class or function into a module that can be imported"
    )


_INGRESS = "__trygon_asgi__"


def _failing(replace: _Replace | None, *, is_argument: bool) -> _Fails:
    def fails(value: object) -> bool:
        try:
            dump_value(value, replace, is_argument=is_argument)
        except Exception:  # noqa: BLE001 - pickling runs user code; any failure is an answer
            return True
        return False

    return fails


def _search(path: str, value: object, fails: _Fails, depth: int = 0) -> str | None:
    """Return the deepest failing part under `path`, described; None if nothing there fails."""
    if not fails(value):
        return None
    if depth < _MAX_DEPTH:
        for step, part in _parts(value):
            found = _search(path + step, part, fails, depth + 1)
            if found is not None:
                return found
    kind = type(value)
    return f"{path} (of type {kind.__module__}.{kind.__qualname__})"


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield what `value` is made of, each with how to write its place."""
    if isinstance(value, AsgiIngress):
        return
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    elif inspect.isfunction(value):
        names = inspect.getclosurevars(value)
        yield from ((f", the variable {name!r} around it", item) for name, item in names.nonlocals.items())
        yield from ((f", the global {name!r} it uses", item) for name, item in names.globals.items())
        yield from ((", a default", item) for item in value.__defaults__ or ())
    else:
        fields = getattr(value, "__dict__", None) or {}
        hidden = {"__dict__", "__weakref__"}
        yield from ((f".{name}", item) for name, item in list(fields.items()) if name not in hidden)
