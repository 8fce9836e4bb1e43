"""The warm image: what replicas and ingress processes need, imported once before they are forked.

Lean on purpose: its import is most of the time from a command to the first answer. Nothing of the
size of numpy, fastapi or pydantic belongs here; user code imports those itself.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable
from typing import Any

__all__ = ["COMMON_MODULES", "REPLICA_MODULES", "freeze", "import_all", "load_function"]

#: Imported before the first fork. The controller and the ingress import the rest themselves, each on a core
#: of its own, while the supervisor imports what replicas need.
COMMON_MODULES: tuple[str, ...] = ("asyncio", "uvloop", "trygon.client.link")

#: Imported before replicas are forked, besides the replica's own module.
REPLICA_MODULES: tuple[str, ...] = ("cloudpickle", "starlette.requests", "starlette.responses")


def import_all(modules: tuple[str, ...]) -> None:
    """Import modules for the sake of having them."""
    for name in modules:
        importlib.import_module(name)


def load_function(path: str) -> Callable[[Any], None]:
    """Return the function that "module:function" names."""
    module, _, name = path.partition(":")
    function: Callable[[Any], None] = getattr(importlib.import_module(module), name)
    return function


def freeze() -> None:
    """Keep the collector's marks off the pages that children share."""
    gc.freeze()
