"""Two versions of one package side by side: each deployment runs with the packages that it asks for.

The package is a wheel that this program writes by itself, so that nothing is downloaded; with an index it
would be ``{"pip": ["prices==1.0"]}``.

Run ``python -m examples.own_packages`` and you will see::

    old: prices 1.0 in an environment of its own
    new: prices 2.0 in an environment of its own

The wheels are written to ``own-packages-wheels`` here. A second run is faster: the environments are found again.
"""

from __future__ import annotations

import asyncio
import sys
import zipfile
from pathlib import Path

from trygon import serve
from trygon.serve import Application
from trygon.serve.handle import DeploymentHandle


@serve.deployment
class Pricing:
    """Says which prices it has; the package is there only where it runs."""

    def __call__(self) -> str:
        """Import what `runtime_env` asked for."""
        import prices  # type: ignore[import-not-found]

        where = "an environment of its own" if "environments" in sys.prefix else "the shared environment"
        return f"prices {prices.VERSION} in {where}"


@serve.deployment
class Compare:
    """Asks both."""

    def __init__(self, old: DeploymentHandle, new: DeploymentHandle) -> None:
        self._old, self._new = old, new

    async def __call__(self) -> dict[str, str]:
        """Ask both at once."""
        old, new = await asyncio.gather(self._old.remote(), self._new.remote())
        return {"old": old, "new": new}


def pricing(wheel: Path) -> Application:
    """Return the deployment with its own packages."""
    options = {"runtime_env": {"pip": ["--no-index", str(wheel)]}}
    return Pricing.options(name=f"Pricing-{wheel.name.split('-')[1]}", ray_actor_options=options).bind()


def write_wheel(folder: Path, version: str) -> Path:
    """Write the smallest wheel that pip installs."""
    path = folder / f"prices-{version}-py3-none-any.whl"
    info = f"prices-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        # With a fixed date, a second run has the same file, and so the same environment.
        for name, text in (
            ("prices.py", f"VERSION = {version!r}\n"),
            (f"{info}/METADATA", f"Metadata-Version: 2.1\nName: prices\nVersion: {version}\n"),
            (f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            (f"{info}/RECORD", ""),
        ):
            wheel.writestr(zipfile.ZipInfo(name), text)
    return path


def main() -> None:
    """Deploy both, and ask them."""
    folder = Path("own-packages-wheels").absolute()
    folder.mkdir(exist_ok=True)
    old, new = (pricing(write_wheel(folder, version)) for version in ("1.0", "2.0"))
    handle = serve.run(Compare.bind(old, new), route_prefix=None)
    for name, text in handle.remote().result(timeout_s=10).items():
        print(f"{name}: {text}")
    serve.shutdown()


if __name__ == "__main__":
    main()
