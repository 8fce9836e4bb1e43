"""FastAPI routes in a deployment: several paths, and arguments that are checked.

Run ``python -m examples.converter_fastapi`` and you will see::

    /cf?temp=100 -> 200 {'fahrenheit': 212.0}
    /fc?temp=212 -> 200 {'celsius': 100.0}
    /cf?temp=warm -> 422 Input should be a valid number, unable to parse string as a number

To keep it running: ``trygon run examples.converter_fastapi:app``; its documentation page is then at
http://127.0.0.1:8000/docs.
"""

from __future__ import annotations

import httpx
from fastapi import FastAPI

from trygon import serve

URL = "http://127.0.0.1:8000"

api = FastAPI(title="Temperature converter")


@serve.deployment
@serve.ingress(api)
class Converter:
    """Convert temperatures in both directions."""

    @api.get("/cf")
    def celsius_to_fahrenheit(self, temp: float) -> dict[str, float]:
        """Turn degrees Celsius into degrees Fahrenheit."""
        return {"fahrenheit": temp * 9 / 5 + 32}

    @api.get("/fc")
    def fahrenheit_to_celsius(self, temp: float) -> dict[str, float]:
        """Turn degrees Fahrenheit into degrees Celsius."""
        return {"celsius": (temp - 32) * 5 / 9}


app = Converter.bind()


def main() -> None:
    """Ask both routes, and one of them something that is no number."""
    serve.run(app)
    for path in ("/cf?temp=100", "/fc?temp=212", "/cf?temp=warm"):
        answer = httpx.get(URL + path)
        shown = answer.json() if answer.is_success else answer.json()["detail"][0]["msg"]
        print(path, "->", answer.status_code, shown)
    serve.shutdown()


if __name__ == "__main__":
    main()
