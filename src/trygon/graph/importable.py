"""Would a fresh process find this module where this process found it?"""

from __future__ import annotations

import os.path
import sys
from types import ModuleType
from typing import Any

__all__ = ["is_importable"]


def is_importable(module: ModuleType) -> bool:
    """Return whether an ordinary import in a process with the same ``sys.path`` gives the same file.

    Modules that a test runner, a notebook or ``exec`` made are not found by anyone else.
    """
    name = module.__name__
    if name in {"__main__", "__mp_main__"}:
        return False
    spec = _find(name)
    if spec is None:
        return False
    if not spec.has_location:
        # Built-in and frozen modules, and namespace packages.
        return spec.origin is not None or getattr(module, "__file__", None) is None
    file, origin = getattr(module, "__file__", None), spec.origin
    return file is not None and (origin == file or os.path.realpath(origin) == os.path.realpath(file))


def _find(name: str) -> Any:
    """Look `name` up as an import would, without running anything and without ``sys.modules``."""
    spec, path = None, None
    prefix = ""
    for part in name.split("."):
        prefix = f"{prefix}.{part}" if prefix else part
        spec = _find_on(prefix, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and prefix != name:
            return None
    return spec


def _find_on(name: str, path: Any) -> Any:
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        if find_spec is None:
            continue
        try:
            spec = find_spec(name, path, None)
        except (ImportError, ValueError, AttributeError):
            continue
        if spec is not None:
            return spec
    return None
