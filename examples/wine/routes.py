"""Three trained models, each an application on its own route, answering "1" (good) or "0".

First train them: ``python -m examples.wine.train``.
Then run ``python -m examples.wine.routes`` and you will see what each model says about one wine::

    /...: 1
    /...: 1
    /...: 1

To serve one of them: ``trygon run examples.wine.routes:build model=wine-models/xgboost.joblib``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import joblib
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from examples.wine.data import COLUMNS, features
from trygon import serve
from trygon.serve import Application

URL = "http://127.0.0.1:8000"

#: A strong wine with little vinegar in it; everything else is ordinary.
GOOD_WINE = {name: column[0] for name, column in COLUMNS.items()} | {
    "alcohol": 13.5,
    "volatile acidity": 0.3,
    "sulphates": 0.9,
}


@serve.deployment
class WineModel:
    """One trained model.

    Args:
        path: The joblib file. Such a file can run code when it is loaded: load only your own.
    """

    def __init__(self, path: str) -> None:
        self.model = joblib.load(path)

    async def __call__(self, request: Request) -> str | PlainTextResponse:
        """Answer HTTP: the body is a JSON object of measurements."""
        try:
            return self.predict(await request.json())
        except ValueError as error:
            return PlainTextResponse(str(error), status_code=400)

    def predict(self, wine: dict[str, Any]) -> str:
        """Return "1" for a good wine, "0" for another; a ValueError if a measurement is missing."""
        return str(int(self.model.predict([features(wine)])[0]))


def build(args: dict[str, str]) -> Application:
    """Build the application of one model: ``model`` is its joblib file."""
    path = Path(args["model"]).resolve()
    return WineModel.options(name=path.stem).bind(str(path))


def saved_models(folder: Path) -> dict[str, Path]:
    """Find the models that the training saved, the best first."""
    listing = folder / "models.json"
    if not listing.exists():
        raise FileNotFoundError(
            f"no models in {str(folder)!r}: run python -m examples.wine.train --out {folder}"
        )
    return {entry["name"]: folder.resolve() / entry["file"] for entry in json.loads(listing.read_text())}


def main() -> None:
    """Serve the saved models side by side and ask each of them about one wine."""
    models = saved_models(Path("wine-models"))
    for name, path in models.items():
        serve.run(build({"model": str(path)}), name=name, route_prefix=f"/{name}")
    for name in models:
        print(f"/{name}: {httpx.post(f'{URL}/{name}', json=GOOD_WINE).text}")
    serve.shutdown()


if __name__ == "__main__":
    main()
