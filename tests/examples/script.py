"""Run Python code as ``python FILE`` or ``python -m MODULE`` would, but on another port than 8000.

Started by `pages.py` in a process of its own: ``script.py PORT start|join FILE|MODULE ARGS...``.
The text "8000" in the code becomes the port; `start` begins with an instance on that port,
`join` leaves that to the code or to a ``trygon run`` beside it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from trygon import serve


def main() -> None:
    """Read the code, and execute it in this process's ``__main__``."""
    port, begin, target, *arguments = sys.argv[1:]
    path = target
    if not target.endswith(".py"):
        spec = importlib.util.find_spec(target)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"there is no module {target!r}")
        path = spec.origin
    code = compile(
        Path(path).read_text(encoding="utf-8").replace("8000", port), path, "exec", dont_inherit=True
    )
    if begin == "start":
        serve.start(http_options=serve.HTTPOptions(host="127.0.0.1", port=int(port)))
    sys.argv = [path, *arguments]
    sys.path[0] = str(Path.cwd())
    exec(code, sys.modules["__main__"].__dict__)


if __name__ == "__main__":
    main()
