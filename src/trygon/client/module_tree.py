"""The modules below folders, whether imported or not: the code of a deployment's own `py_modules` and `working_dir`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trygon.client.snapshot import MAX_SNAPSHOT_BYTES
from trygon.spec.application import ModuleSource
from trygon.spec.validation import notices

__all__ = ["importable_from", "modules_below"]

_MOST_FILES = 5_000


def importable_from(path: str) -> str:
    """Return the folder to look in for a package, a module, or for the modules in a folder."""
    if path.endswith(".py") or os.path.exists(os.path.join(path, "__init__.py")):
        return os.path.dirname(path)
    return path


def modules_below(
    paths: tuple[str, ...], *, limit_bytes: int = MAX_SNAPSHOT_BYTES
) -> tuple[ModuleSource, ...]:
    """Return the sources of packages, modules, and of all modules in folders; the first of one name counts.

    Left out are hidden folders, virtual environments, and folders whose name cannot be a module's.
    Empty, after a warning, when they are more or larger than code is.
    """
    found: dict[str, ModuleSource] = {}
    size = 0
    for path in paths:
        for name, file in _files_of(path):
            if name in found:
                continue
            try:
                source = Path(file).read_bytes()
            except OSError:
                # It is gone, or not readable, so that no replica could import it either.
                continue
            size += len(source)
            if size > limit_bytes or len(found) >= _MOST_FILES:
                notices.once(
                    f"modules.{path}",
                    f"{path!r} has more code below it than a snapshot takes, so none is kept of it: a replacement "
                    "of a replica and an undo import what its files hold then; name a folder with less in it",
                )
                return ()
            is_package = os.path.basename(file) == "__init__.py"
            found[name] = ModuleSource(name=name, path=file, is_package=is_package, source=source)
    return tuple(found[name] for name in sorted(found))


def _files_of(path: str) -> Iterator[tuple[str, str]]:
    if path.endswith(".py"):
        yield os.path.basename(path)[:-3], path
        return
    prefix = f"{os.path.basename(path)}." if os.path.exists(os.path.join(path, "__init__.py")) else ""
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(
            n for n in inner if n.isidentifier() and n != "__pycache__" and not _is_venv(folder, n)
        )
        below = os.path.relpath(folder, path)
        dotted = prefix + ("" if below == "." else below.replace(os.sep, ".") + ".")
        for name in sorted(names):
            module = name.removesuffix(".py")
            if module == "__init__" and dotted:
                yield dotted[:-1], os.path.join(folder, name)
            elif name.endswith(".py") and module.isidentifier() and module != "__init__":
                yield dotted + module, os.path.join(folder, name)


def _is_venv(folder: str, name: str) -> bool:
    return os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
