"""Finds what a user named: by its pickle, or by an import path."""

from __future__ import annotations

import importlib
from typing import Any

from trygon.graph.pickling import loads_definition
from trygon.spec.helper import UserFunction

__all__ = ["load_user_object"]


def load_user_object(function: UserFunction) -> Any:
    """Return a function or class of the user's; raises whatever its import raises."""
    if function.definition:
        return loads_definition(function.definition)[0]
    module, _, name = function.import_path.partition(":")
    if not name:
        module, _, name = function.import_path.rpartition(".")
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    return target
