"""What can be imported is what is declared, and importing the face of Trygon costs little."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.layers import HEAVY_MODULES
from tests.architecture.source import Source

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    module.name
    for module in Source(ROOT / "src" / "trygon", "trygon")
    if "\n__all__ = " in module.text and not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_every_declared_name_exists(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "trygon":
            raise
        pytest.skip(f"{name} needs {error.name}")

    assert [] == [public for public in module.__all__ if not hasattr(module, public)]


@pytest.mark.parametrize("statement", ["import trygon", "from trygon import serve"])
def test_importing_the_face_loads_nothing_heavy(statement: str) -> None:
    script = f"import sys\n{statement}\nprint(*sorted(set({HEAVY_MODULES!r}) & sys.modules.keys()))"

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )

    assert 0 == result.returncode, result.stderr
    assert "" == result.stdout.strip()
