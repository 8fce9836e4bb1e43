"""JSON echo on LitServe with its defaults: ``litserve_app.py PORT``."""

from __future__ import annotations

import sys
from typing import Any

import litserve


class Echo(litserve.LitAPI):
    """Gives back what it gets."""

    def setup(self, device: Any) -> None:
        """Nothing to load."""

    # Without an annotation, or LitServe makes a query parameter of it.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Take the JSON value as it is."""
        return request

    def predict(self, x: Any) -> Any:
        """Answer with what came."""
        return x

    def encode_response(self, output: Any) -> Any:
        """Answer with the value itself."""
        return output


if __name__ == "__main__":
    litserve.LitServer(Echo(), accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
