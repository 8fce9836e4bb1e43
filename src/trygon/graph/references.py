"""Names of classes and functions that a Deployment took over: `module.Converter` is no longer the class.

Pickles of definitions call these functions in the replica; their names are part of stored definitions.
"""

from __future__ import annotations

import sys
from typing import Any

from trygon.graph.deployment import Deployment

__all__ = ["NAMELESS", "find_deployed", "identity", "resolve_deployed"]

#: Qualified name of the classes that ``serve.ingress(app)()`` makes.
NAMELESS = "<ingress>"


def identity(value: object) -> object:
    """Return `value`; pickles call it to put one object in another's place."""
    return value


def resolve_deployed(module_name: str, qualname: str) -> Any:
    """Import a class or function whose name in its module belongs to a Deployment of it."""
    __import__(module_name)
    value, _ = _walk(sys.modules[module_name], qualname)
    return value


def find_deployed(value: Any) -> tuple[str, str] | None:
    """Return where `value` is found through a Deployment that took over its name, or None."""
    module_name, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    module = sys.modules.get(module_name or "")
    if module is None or module_name == "__main__" or qualname is None:
        return None
    if qualname == NAMELESS:
        return _find_variable(module, value)
    if "<locals>" in qualname:
        return None
    try:
        found, through_deployment = _walk(module, qualname)
    except AttributeError:
        return None
    return (module.__name__, qualname) if through_deployment and found is value else None


def _find_variable(module: Any, value: Any) -> tuple[str, str] | None:
    """Find a class that no statement named by the variable that holds its Deployment."""
    for name, held in list(vars(module).items()):
        if isinstance(held, Deployment) and held.func_or_class is value:
            return module.__name__, name
    return None


def _walk(module: Any, qualname: str) -> tuple[Any, bool]:
    value, through_deployment = module, False
    for part in qualname.split("."):
        value = getattr(value, part)
        if isinstance(value, Deployment):
            value, through_deployment = value.func_or_class, True
    return value, through_deployment
