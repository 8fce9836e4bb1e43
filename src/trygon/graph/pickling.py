"""A deployment's definition as bytes: its class or function and its bound arguments.

What an ordinary import finds travels by name, everything else by value.
Only replicas load definitions; the caller never does.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from trygon.errors import SerializationError, ServeError
from trygon.graph.deployment import Application

__all__ = ["dumps_definition", "loads_definition"]


def dumps_definition(
    target: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    name: str = "",
    replace: Callable[[Application], object] | None = None,
) -> bytes:
    """Return a pickle of ``(target, args, kwargs)`` that a replica can load.

    Args:
        target: The class or function.
        args: Positional arguments of the constructor.
        kwargs: Keyword arguments of the constructor.
        name: The deployment, for error texts.
        replace: Gives what stands in for each Application met in the arguments, at any depth.

    Raises:
        SerializationError: Something cannot be pickled; the text names it and the remedy.
        ServeError: Raised by `replace`.
    """
    # cloudpickle is loaded by the first deploy, not by `from trygon import serve`.
    from trygon.graph.pickler import dump

    try:
        return dump(target, args, kwargs or {}, replace)
    except ServeError:
        raise
    except Exception as error:  # pickling runs the users' __reduce__ and __getstate__
        from trygon.graph.unpicklable import explain

        text = explain(target, args, kwargs or {}, replace, error)
        raise SerializationError(f"the deployment {name!r} cannot be sent to its replicas: {text}") from error


def loads_definition(definition: bytes) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return what `dumps_definition` was given; in a replica only, for it runs the user's code."""
    try:
        target, args, kwargs = pickle.loads(definition)
    except (ImportError, AttributeError) as error:
        if isinstance(error, AttributeError) and not str(error).startswith(
            ("Can't get attribute", "module ")
        ):
            raise
        error.add_note(
            "the replica does not find code of this deployment; its modules must be on the Python path of the "
            "process that deploys, at import as in a fresh process (`trygon run --app-dir FOLDER` adds a folder)"
        )
        raise
    return target, args, kwargs
