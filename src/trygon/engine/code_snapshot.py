"""Imports an application's own modules as they were when it was built, whatever their files hold now.

Only where the source comes from differs: a module's `__file__` is its file, so that data beside it is found,
and tracebacks show the lines that run. What is not in the snapshot is imported from the files.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import msgspec

from trygon.spec.application import ModuleSource

__all__ = ["install_snapshot", "read_snapshot"]


def install_snapshot(path: str) -> None:
    """Let this process import the modules of the snapshot at `path`.

    One that is lost or damaged is told on standard error, and the files are imported as they are:
    a replica that serves is worth more than none.
    """
    try:
        modules = read_snapshot(path)
    except (OSError, ValueError) as error:
        print(  # noqa: T201 - before there is a log
            f"the snapshot of the application's code {path!r} cannot be used ({error}): "
            "modules are imported as their files are now; deploy again to have a snapshot",
            file=sys.stderr,
        )
        return
    sys.meta_path.insert(0, _Finder({module.name: module for module in modules}))


def read_snapshot(path: str) -> tuple[ModuleSource, ...]:
    """Return the modules in a snapshot, which is named by its digest.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not what was written.
    """
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != os.path.basename(path):
        raise ValueError("its content does not fit its name")
    return msgspec.msgpack.decode(data, type=tuple[ModuleSource, ...])


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, modules: dict[str, ModuleSource]) -> None:
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        module = self._modules.get(fullname)
        if module is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname,
            module.path,
            loader=_Loader(module),
            submodule_search_locations=[os.path.dirname(module.path)] if module.is_package else None,
        )


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, module: ModuleSource) -> None:
        super().__init__(module.name, module.path)
        self._source = module.source

    def get_data(self, path: str) -> bytes:
        """Return the snapshot's source; the cached byte code of a file as it is."""
        return self._source if path == self.path else super().get_data(path)

    def path_stats(self, path: str) -> dict[str, float]:
        """Allow the cache of byte code, which belongs to the file, only while the file is as it was."""
        if Path(path).read_bytes() != self._source:
            raise OSError(f"{path!r} is not what it was when the application was built")
        return dict(super().path_stats(path))

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; tracebacks are to show its lines, not those of an edited file."""
        text = importlib.util.decode_source(self._source)
        linecache.cache[self.path] = (len(text), None, text.splitlines(keepends=True), self.path)
        super().exec_module(module)
