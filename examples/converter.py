"""A class that answers HTTP: temperatures come in as query parameters.

Run ``python -m examples.converter`` and you will see::

    100 C is 212.0 F
    -40 C is -40.0 F

To keep it running: ``trygon run examples.converter:app``, then
``curl "http://127.0.0.1:8000/?celsius=100"``.
"""

from __future__ import annotations

import httpx
from starlette.requests import Request

from trygon import serve

URL = "http://127.0.0.1:8000"


@serve.deployment
class Converter:
    """Turn degrees Celsius into degrees Fahrenheit."""

    def __call__(self, request: Request) -> dict[str, float]:
        """Answer ``?celsius=NUMBER``; a returned dict becomes JSON."""
        celsius = float(request.query_params.get("celsius", "0"))
        return {"celsius": celsius, "fahrenheit": celsius * 9 / 5 + 32}


app = Converter.bind()


def main() -> None:
    """Serve the converter, ask it twice, and stop."""
    serve.run(app)
    for celsius in (100, -40):
        answer = httpx.get(URL, params={"celsius": celsius}).json()
        print(f"{celsius} C is {answer['fahrenheit']} F")
    serve.shutdown()


if __name__ == "__main__":
    main()
