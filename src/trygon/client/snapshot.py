"""What an application's own modules are at this moment: the code that goes with a revision."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trygon.spec.application import ModuleSource
from trygon.spec.validation import notices

__all__ = ["MAX_SNAPSHOT_BYTES", "own_files", "own_modules"]

#: Beyond it there is no snapshot: what is that large is no code.
MAX_SNAPSHOT_BYTES = 32 << 20

_SITE_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def own_files() -> dict[str, str]:
    """Return the files of the modules that this process imported from outside of the Python installation, by module.

    Not among them: what is installed in site-packages, extension modules, and `__main__`.
    """
    prefixes = tuple(
        prefix.rstrip(os.sep) + os.sep for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, _OWN}
    )
    found = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == "__main__" or not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = os.path.abspath(file)
        if not path.startswith(prefixes) and not any(part in path for part in _SITE_PACKAGES):
            found[name] = path
    return found


def own_modules(*, limit_bytes: int = MAX_SNAPSHOT_BYTES) -> tuple[ModuleSource, ...]:
    """Return the modules of `own_files` with their sources, by name.

    The objects of `__main__` travel inside of the definitions; what is imported later, inside of functions, is
    not there yet. Empty, after a warning, when they are larger than `limit_bytes`.
    """
    found = []
    size = 0
    for name, path in own_files().items():
        try:
            source = Path(path).read_bytes()
        except OSError:
            # It is gone, so that no replica could import it either.
            continue
        size += len(source)
        if size > limit_bytes:
            notices.once(
                "snapshot.size",
                f"the application's own modules are larger than {limit_bytes} bytes ({path!r} among them), "
                "so no snapshot of its code is kept: a replacement of a replica and an undo import what the "
                "files hold then; move data out of Python files, or install large packages",
            )
            return ()
        found.append(
            ModuleSource(
                name=name, path=path, is_package=hasattr(sys.modules[name], "__path__"), source=source
            )
        )
    return tuple(found)
