"""The pickler of definitions: cloudpickle that knows deployments, applications and private modules."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from trygon.graph.deployment import Application
from trygon.graph.importable import is_importable
from trygon.graph.references import find_deployed, identity, resolve_deployed

__all__ = ["dump", "dump_value"]

_Replace = Callable[[Application], object]


#: Parts of Starlette and FastAPI that pickle refuses or cannot load, made again by their constructors.
_REDUCERS: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    # Holds a lock and caches.
    ("fastapi.routing", "_IncludedRouter"): lambda value: (
        type(value),
        (value.original_router, value.include_context),
    ),
    # Answers every attribute, so pickle's question for __setstate__ never ends.
    ("starlette.datastructures", "State"): lambda value: (type(value), (vars(value)["_state"],)),
}


class _Arguments:
    """Stands before the bound arguments in a pickle: from here on Applications are replaced."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.args = args


class _DefinitionPickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, replace: _Replace | None) -> None:
        super().__init__(file, protocol=5)
        self._replace = replace
        self._in_arguments = False
        self._importable: dict[str, bool] = {}
        self._registered: list[ModuleType] = []

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Application) and self._in_arguments and self._replace is not None:
            return identity, (self._replace(value),)
        if isinstance(value, _Arguments):
            self._in_arguments = True
            return identity, (value.args,)
        if isinstance(value, type | FunctionType):
            found = find_deployed(value)
            if found is not None and self._is_importable(sys.modules[found[0]]):
                return resolve_deployed, found
            self._by_value_if_private(sys.modules.get(value.__module__ or ""))
        elif isinstance(value, ModuleType):
            self._by_value_if_private(sys.modules.get(value.__name__))
        else:
            reduce = _REDUCERS.get((type(value).__module__, type(value).__name__))
            if reduce is not None:
                return reduce(value)
        return super().reducer_override(value)

    def _is_importable(self, module: ModuleType) -> bool:
        known = self._importable.get(module.__name__)
        if known is None:
            known = self._importable[module.__name__] = is_importable(module)
        return known

    def _by_value_if_private(self, module: ModuleType | None) -> None:
        """Let cloudpickle send by value what a replica could not import."""
        if module is None or module.__name__ == "__main__" or self._is_importable(module):
            return
        if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            self._registered.append(module)

    def restore(self) -> None:
        """Leave cloudpickle's registry, which the whole process shares, as it was."""
        for module in self._registered:
            cloudpickle.unregister_pickle_by_value(module)


def dump(target: object, args: tuple[Any, ...], kwargs: dict[str, Any], replace: _Replace | None) -> bytes:
    """Return the pickle of ``(target, args, kwargs)`` with Applications among the arguments replaced."""
    return _dump((target, _Arguments(args), kwargs), replace)


def dump_value(value: object, replace: _Replace | None, *, is_argument: bool) -> bytes:
    """Return the pickle of one part of a definition, to find out which part fails."""
    return _dump(_Arguments((value,)) if is_argument else value, replace)


def _dump(value: object, replace: _Replace | None) -> bytes:
    file = io.BytesIO()
    pickler = _DefinitionPickler(file, replace)
    try:
        pickler.dump(value)
    finally:
        pickler.restore()
    return file.getvalue()
