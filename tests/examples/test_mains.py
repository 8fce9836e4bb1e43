"""Every example run as a program prints what its docstring says you will see."""

from __future__ import annotations

import ast
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.examples.pages import ROOT, Reader, matches

_RUN = re.compile(
    r"``python -m (?P<module>[\w.]+)``(?:(?!``python)[^:])*you will see[^:]*::\n\n(?P<shown>(?:    .*\n|\n)+)"
)


def promises() -> dict[str, str]:
    """Map each example with a program to the output its docstring shows."""
    found = {}
    for path in sorted((ROOT / "examples").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "__main__" not in text or path.name == "demo.py":
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[module] = next(
            (
                textwrap.dedent(match["shown"])
                for match in _RUN.finditer((ast.get_docstring(ast.parse(text)) or "") + "\n")
                if match["module"] == module
            ),
            "",
        )
    return found


@pytest.mark.timeout(120)
@pytest.mark.parametrize("module", promises())
def test_the_program_prints_what_its_docstring_shows(module: str, wine_models: Path, tmp_path: Path) -> None:
    shown = promises()[module]
    assert shown, f"{module} does not say what one will see"
    if module != "examples.wine.train":
        shutil.copytree(wine_models, tmp_path / "wine-models")

    with Reader(tmp_path) as reader:
        output = reader.run_python(["-m", module])

    assert matches(shown, output), output


@pytest.mark.timeout(120)
def test_the_demo_checks_its_answers_and_ends_with_0(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        output = reader.run_program(
            [sys.executable, "-m", "examples.demo", "--trees", "10", "--calls", "40", "--port", "0"]
        )

    assert "all answers were right" in output
    assert "p50" in output


@pytest.mark.timeout(120)
def test_ctrl_c_stops_the_demo_cleanly(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        demo = subprocess.Popen(
            [sys.executable, "-m", "examples.demo", "--trees", "10", "--calls", "1000000", "--port", "0"],
            cwd=tmp_path,
            env=reader.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert demo.stdout is not None
        output = ""
        for line in demo.stdout:
            output += line
            if line.startswith("measure"):
                demo.send_signal(signal.SIGINT)
                break
        rest, _ = demo.communicate(timeout=30)

    assert 130 == demo.returncode, output + rest
    assert "stopped by Ctrl-C" in rest
    assert "Traceback" not in rest
