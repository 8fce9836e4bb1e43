"""Python calls through a handle: a deployment's other methods, without HTTP.

Run ``python -m examples.converter_methods`` and you will see::

    over HTTP: {'fahrenheit': 212.0}
    to_fahrenheit: 212.0
    to_celsius: 100.0
    table: [(0, 32.0), (50, 122.0), (100, 212.0)]

To keep it running: ``trygon run examples.converter_methods:app``.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx
from starlette.requests import Request

from trygon import serve

URL = "http://127.0.0.1:8000"


@serve.deployment
class Converter:
    """Convert temperatures, over HTTP and for other Python code."""

    def __call__(self, request: Request) -> dict[str, float]:
        """Answer HTTP: ``?celsius=NUMBER``."""
        return {"fahrenheit": self.to_fahrenheit(float(request.query_params.get("celsius", "0")))}

    def to_fahrenheit(self, celsius: float) -> float:
        """Convert one temperature."""
        return celsius * 9 / 5 + 32

    def to_celsius(self, fahrenheit: float) -> float:
        """Convert one temperature back."""
        return (fahrenheit - 32) * 5 / 9

    def table(self, celsius: Sequence[float]) -> list[tuple[float, float]]:
        """Pair each temperature with its conversion: any value that pickles can travel."""
        return [(value, self.to_fahrenheit(value)) for value in celsius]


app = Converter.bind()


def main() -> None:
    """Call the same deployment over HTTP and through its handle."""
    handle = serve.run(app)
    print("over HTTP:", httpx.get(URL, params={"celsius": 100}).json())
    print("to_fahrenheit:", handle.to_fahrenheit.remote(100).result(timeout_s=10))
    print("to_celsius:", handle.to_celsius.remote(fahrenheit=212).result(timeout_s=10))
    print("table:", handle.table.remote([0, 50, 100]).result(timeout_s=10))
    serve.shutdown()


if __name__ == "__main__":
    main()
