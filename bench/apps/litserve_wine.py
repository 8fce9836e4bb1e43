"""Wine classes on LitServe with its batching, one row a request: ``litserve_wine.py PORT``."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from wine_model import MAX_BATCH_SIZE, WAIT_S, predict, train


class Wine(litserve.LitAPI):
    """Asks the model about the rows of many requests at once."""

    def setup(self, device: Any) -> None:
        """Train the model."""
        self.model = train()

    # Without an annotation, or LitServe makes a query parameter of it.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Take the row."""
        return request["features"]

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Leave the rows as a list."""
        return inputs

    def predict(self, x: list[Any]) -> list[Any]:
        """Return the class of each row."""
        return predict(self.model, x)

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Leave the classes as a list."""
        return output

    def encode_response(self, output: Any) -> Any:
        """Answer with the class."""
        return output


if __name__ == "__main__":
    api = Wine(max_batch_size=MAX_BATCH_SIZE, batch_timeout=WAIT_S)
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
