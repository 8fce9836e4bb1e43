"""Three copies of one class: each answer shows which replica gave it.

Run ``python -m examples.converter_replicas`` and you will see three ids, each with its share::

    300 answers from 3 replicas
    ...: ... answers
    ...: ... answers
    ...: ... answers

To keep it running: ``trygon run examples.converter_replicas:app``, then repeat
``curl "http://127.0.0.1:8000/?celsius=100"`` and watch the id change.
"""

from __future__ import annotations

from collections import Counter

import httpx
from starlette.requests import Request

from trygon import serve

URL = "http://127.0.0.1:8000"


@serve.deployment(num_replicas=3)
class Converter:
    """Convert a temperature and say which replica did it."""

    def __init__(self) -> None:
        self.replica = serve.get_replica_context().replica_tag

    def __call__(self, request: Request) -> dict[str, float | str]:
        """Answer HTTP: ``?celsius=NUMBER``."""
        return self.convert(float(request.query_params.get("celsius", "0")))

    def convert(self, celsius: float) -> dict[str, float | str]:
        """Convert one temperature; callable through a handle too."""
        return {"fahrenheit": celsius * 9 / 5 + 32, "replica": self.replica}


app = Converter.bind()


def main() -> None:
    """Send 300 requests and count who answered."""
    serve.run(app)
    with httpx.Client() as client:
        answers = [client.get(URL, params={"celsius": celsius}).json() for celsius in range(300)]
    shares = Counter(answer["replica"] for answer in answers)
    print(f"{len(answers)} answers from {len(shares)} replicas")
    for replica, count in shares.most_common():
        print(f"{replica}: {count} answers")
    serve.shutdown()


if __name__ == "__main__":
    main()
